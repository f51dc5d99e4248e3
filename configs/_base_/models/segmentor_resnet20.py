_base_ = ['segmentor.py']
# A light segmentor for CPUs: CIFAR's ResNet20 with stride 2 in its stem, initialized from zoo weights, with PSPNet's head.
# The attention and the connections are set by the config that inherits from this one.
model = dict(
    data_preprocessor=dict(mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418]),
    backbone=dict(
        _delete_=True,
        type='EANResNetCIFAR',
        depth=20,
        stem_stride=2,
        init_cfg=dict(type='Pretrained', checkpoint='ean://resnet20.cifar100')),
    decode_head=dict(in_channels=64, channels=64))

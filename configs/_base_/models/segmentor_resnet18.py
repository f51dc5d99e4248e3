_base_ = ['segmentor.py']
# A segmentor for CPUs: ResNet18 without its last stage and with a dilation in place of the third's stride, with PSPNet's head.
# The attention and the connections are set by the config that inherits from this one.
model = dict(
    backbone=dict(
        depth=18,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 2),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    decode_head=dict(in_channels=256, channels=128))

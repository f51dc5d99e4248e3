# A light counter for CPUs: CIFAR's ResNet20 with stride 2 in its stem, so that a cell is 8 pixels wide, initialized from zoo weights.
# The attention and the connections are set by the config that inherits from this one.
model = dict(
    type='CrowdCounter',
    data_preprocessor=dict(type='ImagePreprocessor', mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418]),
    backbone=dict(
        type='EANResNetCIFAR',
        depth=20,
        stem_stride=2,
        init_cfg=dict(type='Pretrained', checkpoint='ean://resnet20.cifar100')),
    loss=dict(type='DensityL2'))

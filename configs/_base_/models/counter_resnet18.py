# The network of counter_resnet50 with ResNet18, for CPUs: without its last stage and with stride 1 in the third, so that a cell is 8
# pixels wide. The attention and the connections are set by the config that inherits from this one.
model = dict(
    type='CrowdCounter',
    data_preprocessor=dict(type='ImagePreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        type='EANResNet',
        depth=18,
        num_stages=3,
        strides=(1, 2, 1),
        norm_eval=True,  # as pretrained: batches are small
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    loss=dict(type='DensityL2'))

# The likely network of Table 3: ResNet50 without its last stage and with stride 1 in the third, so that a cell is 8 pixels wide.
# The attention and the connections are set by the config that inherits from this one.
model = dict(
    type='CrowdCounter',
    data_preprocessor=dict(type='ImagePreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        type='EANResNet',
        depth=50,
        num_stages=3,
        strides=(1, 2, 1),
        norm_eval=True,  # batches are single images
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    loss=dict(type='DensityL2'))

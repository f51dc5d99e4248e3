_base_ = ['segmentor.py']
# PSPNet on ResNet50 with dilations instead of the last two strides (R50-D8), as in mmsegmentation.
# The attention and the connections are set by the config that inherits from this one.
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        depth=50,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    decode_head=dict(in_channels=2048, in_index=3, channels=512, loss_decode=dict(avg_non_ignore=False)),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            type='MaskedCrossEntropyLoss', class_weight=None, loss_weight=0.4, avg_non_ignore=False)),
    test_cfg=dict(shorter_side=512))

# A segmentor for CPUs: ResNet18 without its last stage and with a dilation in place of the third's stride, with PSPNet's head.
# The attention and the connections are set by the config that inherits from this one.
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='Segmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(256, 256),
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='EANResNet',
        depth=18,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 2),
        contract_dilation=True,
        norm_cfg=norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    decode_head=dict(
        type='PSPHead',
        in_channels=256,
        in_index=2,
        channels=128,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='MaskedCrossEntropyLoss', class_weight=None)),
    test_cfg=dict(mode='whole', shorter_side=320))

# What the segmentors share: PSPNet's head on the last feature map, and normalization by ImageNet's colors. Sizes and the backbone are set
# by the configs that inherit from this one.
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
    backbone=dict(type='EANResNet', contract_dilation=True, norm_cfg=norm_cfg),
    decode_head=dict(
        type='PSPHead',
        in_index=2,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='MaskedCrossEntropyLoss', class_weight=None)),
    test_cfg=dict(mode='whole', shorter_side=320))

# A light segmentor for CPUs: CIFAR's ResNet20 with stride 2 in its stem, initialized from zoo weights, with PSPNet's head.
# The attention and the connections are set by the config that inherits from this one.
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='Segmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[129.304, 124.070, 112.434],
        std=[68.170, 65.392, 70.418],
        bgr_to_rgb=True,
        size=(256, 256),
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='EANResNetCIFAR',
        depth=20,
        stem_stride=2,
        init_cfg=dict(type='Pretrained', checkpoint='ean://resnet20.cifar100')),
    decode_head=dict(
        type='PSPHead',
        in_channels=64,
        in_index=2,
        channels=64,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='MaskedCrossEntropyLoss', class_weight=None)),
    test_cfg=dict(mode='whole', shorter_side=320))

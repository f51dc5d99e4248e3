# ADE20K, in EAN_DATA/ade/ADEChallengeData2016 as published: 80,000 iterations of 16 images, as in mmsegmentation.
image_size = (512, 512)  # height and width in pixels, for timing
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        type='KeyedDataset',
        dataset=dict(
            type='ADE20KDataset',
            data_root='ade/ADEChallengeData2016',
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
            pipeline=train_pipeline)),
    sampler=dict(type='EpochSampler', shuffle=True))
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    dataset=dict(
        type='KeyedDataset',
        dataset=dict(
            type='ADE20KDataset',
            data_root='ade/ADEChallengeData2016',
            data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
            pipeline=test_pipeline,
            test_mode=True)),
    sampler=dict(type='EpochSampler', shuffle=False))
test_evaluator = dict(type='ClassIoU')
test_cfg = dict(type='TestLoop')

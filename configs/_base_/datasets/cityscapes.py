# Cityscapes, in EAN_DATA/cityscapes as published, labelTrainIds made by its own scripts: 40,000 iterations of 8 images, as mmsegmentation's.
image_size = (512, 1024)  # height and width in pixels, for timing
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        type='KeyedDataset',
        dataset=dict(
            type='CityscapesDataset',
            data_root='cityscapes',
            data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
            pipeline=train_pipeline)),
    sampler=dict(type='EpochSampler', shuffle=True))
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    dataset=dict(
        type='KeyedDataset',
        dataset=dict(
            type='CityscapesDataset',
            data_root='cityscapes',
            data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
            pipeline=test_pipeline,
            test_mode=True)),
    sampler=dict(type='EpochSampler', shuffle=False))
test_evaluator = dict(type='ClassIoU')
test_cfg = dict(type='TestLoop')

# Custom images, prepared by `ean crowd prepare`: a tenth of the training images are for validation; the test images are read only by
# `ean test`.
image_size = (768, 1024)  # height and width in pixels, for timing and export
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type='CrowdDataset',
        root='crowd/own',
        part='own',
        split='train',
        augment=True,
        crop=(256, 320),
        scale=(0.5, 2.0),
        flip=True,
        jitter=0.4,
        gray=0.12,
        blur=0.1,
        blank=0.03,
        last=dict(size=1.5, scale=(0.75, 1.25))),
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='crowd_batch'))
val_dataloader = dict(
    batch_size=1,  # whole images of any size
    num_workers=1,
    persistent_workers=True,
    dataset=dict(type='CrowdDataset', root='crowd/own', part='own', split='val'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='crowd_batch'))
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    dataset=dict(type='CrowdDataset', root='crowd/own', part='own', split='test'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='crowd_batch'))
val_evaluator = dict(type='CountMetric')
test_evaluator = dict(type='CountMetric')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

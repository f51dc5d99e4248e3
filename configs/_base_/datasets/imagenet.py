# ImageNet-style folders under EAN_DATA/imagenet: final networks train on all training images; the official validation images are the test set, as in the paper.
image_size = 224  # height and width in pixels, for timing
train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    dataset=dict(type='ImageTree', root='imagenet', split='trainval', size=224, augment=True),
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'))
test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    pin_memory=True,
    dataset=dict(type='ImageTree', root='imagenet', split='test', size=224),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='default_collate'))
test_evaluator = dict(type='TopK', topk=(1, 5))
test_cfg = dict(type='TestLoop')

# ImageNet-style folders under EAN_DATA/imagenet: 100 images a class are held out for the search (Section 5.1).
train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    dataset=dict(type='ImageTree', root='imagenet', split='train', size=224, augment=True),
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'))
val_dataloader = dict(
    batch_size=256,
    num_workers=8,
    pin_memory=True,
    dataset=dict(type='ImageTree', root='imagenet', split='val', size=224),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='default_collate'))
val_evaluator = dict(type='TopK', topk=(1, 5))
val_cfg = dict(type='ValLoop')
test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    pin_memory=True,
    dataset=dict(type='ImageTree', root='imagenet', split='test', size=224),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='default_collate'))
test_evaluator = dict(type='TopK', topk=(1, 5))
test_cfg = dict(type='TestLoop')

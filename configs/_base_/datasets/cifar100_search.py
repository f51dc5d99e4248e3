# CIFAR-100: the supernet trains without the validation images, on which schemes are compared.
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(type='CIFAR100', split='train', pad=4, flip=True),
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='as_batch'))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type='CIFAR100', split='val'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='as_batch'))
val_evaluator = dict(type='TopK', topk=(1, 5))
val_cfg = dict(type='ValLoop')
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type='CIFAR100', split='test'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='as_batch'))
test_evaluator = dict(type='TopK', topk=(1, 5))
test_cfg = dict(type='TestLoop')

# scikit-learn's digits: the supernet trains without the validation images, on which schemes are compared.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(type='Digits', split='train', pad=1),
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='as_batch'))
val_dataloader = dict(
    batch_size=400,
    num_workers=0,
    dataset=dict(type='Digits', split='val'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='as_batch'))
val_evaluator = dict(type='TopK', topk=(1, ))
val_cfg = dict(type='ValLoop')
test_dataloader = dict(
    batch_size=400,
    num_workers=0,
    dataset=dict(type='Digits', split='test'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='as_batch'))
test_evaluator = dict(type='TopK', topk=(1, ))
test_cfg = dict(type='TestLoop')

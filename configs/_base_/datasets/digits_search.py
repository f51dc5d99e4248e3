_base_ = './digits.py'
# For supernet and search: the supernet is trained without the 40 images per class used to compare schemes.
train_dataloader = dict(dataset=dict(split='train'))
val_dataloader = dict(
    batch_size=400,
    num_workers=0,
    dataset=dict(type='Digits', split='val'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='as_batch'))
val_evaluator = dict(type='TopK', topk=(1, ))
val_cfg = dict(type='ValLoop')

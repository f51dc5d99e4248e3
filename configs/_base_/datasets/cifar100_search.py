_base_ = './cifar100.py'
# For supernet and search: the supernet is trained without the 100 images per class used to compare schemes (Section 5.1).
train_dataloader = dict(dataset=dict(split='train'))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type='CIFAR100', split='val'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='as_batch'))
val_evaluator = dict(type='TopK', topk=(1, 5))
val_cfg = dict(type='ValLoop')

_base_ = './imagenet.py'
# For supernet and search: 100 images per class are held out for the search (Section 5.1).
train_dataloader = dict(dataset=dict(split='train'))
val_dataloader = dict(
    batch_size=256,
    num_workers=8,
    pin_memory=True,
    dataset=dict(type='ImageTree', root='imagenet', split='val', size=224),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='default_collate'))
val_evaluator = dict(type='TopK', topk=(1, 5))
val_cfg = dict(type='ValLoop')

# CIFAR-100: final networks train on all training images; the test images are read once, by `ean test`.
image_size = 32  # height and width in pixels, for timing
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(type='CIFAR100', split='trainval', pad=4, flip=True),
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='as_batch'))
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type='CIFAR100', split='test'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='as_batch'))
test_evaluator = dict(type='TopK', topk=(1, 5))
test_cfg = dict(type='TestLoop')

# scikit-learn's digits: final networks train on all training images; the test images are read once, by `ean test`.
image_size = 8  # height and width in pixels, for timing
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(type='Digits', split='trainval', pad=1),
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='as_batch'))
test_dataloader = dict(
    batch_size=400,
    num_workers=0,
    dataset=dict(type='Digits', split='test'),
    sampler=dict(type='EpochSampler', shuffle=False),
    collate_fn=dict(type='as_batch'))
test_evaluator = dict(type='TopK', topk=(1, ))
test_cfg = dict(type='TestLoop')

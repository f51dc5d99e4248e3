_base_ = './voc2012_light.py'
# For supernet and search: the supernet is trained without the tenth of the training images used to compare schemes.
test_pipeline = {{_base_.test_pipeline}}
train_dataloader = dict(dataset=dict(split='fit'))
val_dataloader = dict(
    batch_size=1,  # whole images of any size
    num_workers=1,
    dataset=dict(type='PreparedVOC', split='held_out', pipeline=test_pipeline, test_mode=True),
    sampler=dict(type='EpochSampler', shuffle=False))
val_evaluator = dict(type='ClassIoU')
val_cfg = dict(type='ValLoop')

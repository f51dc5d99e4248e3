# A short schedule for small networks on CPUs: one cycle up to the optimizer's lr and back down, over the length set in train_cfg.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = dict(type='OneCycleLR', pct_start=0.25, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=24, val_interval=5)

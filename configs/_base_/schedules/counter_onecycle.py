# A schedule for small networks on CPUs: one cycle up to the optimizer's lr and back down, over the length set in train_cfg.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.0))
param_scheduler = dict(type='OneCycleLR', pct_start=0.2, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=2)

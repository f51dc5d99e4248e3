# The likely protocol of Table 3: Adam at 1e-5, times 0.995 per epoch, 200 epochs, whole images one by one, mirrored at random.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-5, weight_decay=1e-4))
param_scheduler = dict(type='ExponentialLR', gamma=0.995, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)

# The authors' code: 120 epochs, lr 0.1 divided by 10 every 30 epochs, total batch size 256.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='StepLR', step_size=30, gamma=0.1, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=120, val_interval=5)

# The schedule for training from scratch on CIFAR in the authors' other papers; this paper gives none.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='MultiStepLR', milestones=[81, 122], gamma=0.1, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=164, val_interval=10)

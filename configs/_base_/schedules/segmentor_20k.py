# mmsegmentation's 20,000 iterations with batches of 16, as epochs of VOC's 10,582 images with SBD; about 217 epochs of its own 1,464 images.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type='PolyLR', power=0.9, eta_min=1e-4, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=30)

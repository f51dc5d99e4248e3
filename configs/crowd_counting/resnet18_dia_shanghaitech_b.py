_base_ = [
    '../_base_/models/counter_resnet18.py',
    '../_base_/datasets/shanghaitech_b.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# Share-full; vanilla is scheme='none'. Gates see windows of the size of the training crops.
model = dict(backbone=dict(attention=dict(type='DIA', identity_start=True, window=(256, 320)), scheme='full'))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_cfg = dict(max_epochs=80, val_interval=10)
default_hooks = dict(last=dict(epochs=14))

_base_ = [
    '../_base_/models/counter_resnet18.py',
    '../_base_/datasets/shanghaitech_b.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# A Share-full counter; each iteration trains a random sub-network (Section 4.2). Validated and searched on a tenth of the training images.
model = dict(backbone=dict(attention='SE', scheme='full'))
default_hooks = dict(scheme=dict(type='RandomSchemeHook', p=0.5))
find_unused_parameters = True
train_cfg = dict(val_interval=10)

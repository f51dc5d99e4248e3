_base_ = [
    '../_base_/models/resnet20_cifar100.py',
    '../_base_/datasets/cifar100_search.py',
    '../_base_/schedules/cifar_onecycle.py',
    '../_base_/runtime.py',
]
# A Share-full network; each iteration trains a random sub-network (Section 4.2).
model = dict(backbone=dict(attention='DIA', scheme='full'))
default_hooks = dict(scheme=dict(type='RandomSchemeHook', p=0.5))
find_unused_parameters = True
train_cfg = dict(max_epochs=15)

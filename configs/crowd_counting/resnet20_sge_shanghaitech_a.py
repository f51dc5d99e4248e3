_base_ = [
    '../_base_/models/counter_resnet20.py',
    '../_base_/datasets/shanghaitech_a.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# The scheme found for SGE on CIFAR-100, and the weights of that network.
model = dict(backbone=dict(attention='SGE', scheme='010-100-000', init_cfg=dict(checkpoint='ean://ean_resnet20_sge.cifar100')))

_base_ = [
    '../_base_/models/segmentor_resnet20.py',
    '../_base_/datasets/voc2012_light.py',
    '../_base_/schedules/segmentor_onecycle.py',
    '../_base_/segmentor_runtime.py',
]
# The scheme found for DIA on CIFAR-100, and the weights of that network.
model = dict(backbone=dict(attention='DIA', scheme='010-100-000', init_cfg=dict(checkpoint='ean://ean_resnet20_dia.cifar100')))

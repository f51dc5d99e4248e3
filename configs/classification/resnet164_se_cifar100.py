_base_ = [
    '../_base_/models/resnet164_cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_164e_step.py',
    '../_base_/runtime.py',
]
# The recorded scheme; vanilla is scheme='none', Share-full is scheme='full', Org-full is scheme='full' with shared=False.
model = dict(backbone=dict(attention='SE', scheme='ean'))

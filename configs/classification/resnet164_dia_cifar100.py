_base_ = [
    '../_base_/models/resnet164_cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_164e_step.py',
    '../_base_/runtime.py',
]
# Share-full until a search says where to connect: give its scheme by --cfg-options model.backbone.scheme=...
model = dict(backbone=dict(attention='DIA', scheme='full'))

_base_ = [
    '../_base_/models/resnet56_cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_onecycle.py',
    '../_base_/runtime.py',
]
# Share-full until a search says where to connect: give its scheme by --cfg-options model.backbone.scheme=...
model = dict(backbone=dict(attention='DIA', scheme='full'))
train_cfg = dict(max_epochs=20)

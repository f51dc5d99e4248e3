_base_ = [
    '../_base_/models/resnet56_cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_onecycle.py',
    '../_base_/runtime.py',
]
# Share-full until a search has found a scheme: set it with --cfg-options model.backbone.scheme=...
model = dict(backbone=dict(attention='SGE', scheme='full'))
train_cfg = dict(max_epochs=16)

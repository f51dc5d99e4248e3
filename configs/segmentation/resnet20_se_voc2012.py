_base_ = [
    '../_base_/models/segmentor_resnet20.py',
    '../_base_/datasets/voc2012_light.py',
    '../_base_/schedules/segmentor_onecycle.py',
    '../_base_/segmentor_runtime.py',
]
# The scheme found for SE on CIFAR-100, and the weights of that network. For other connections, change both:
# model.backbone.scheme=none model.backbone.init_cfg.checkpoint=ean://resnet20.cifar100, or full and ean://full_resnet20_se.cifar100.
model = dict(backbone=dict(attention='SE', scheme='010-100-000', init_cfg=dict(checkpoint='ean://ean_resnet20_se.cifar100')))

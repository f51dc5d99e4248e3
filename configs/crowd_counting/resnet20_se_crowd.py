_base_ = [
    '../_base_/models/counter_resnet20.py',
    '../_base_/datasets/crowd.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# Starts from the ShanghaiTech B counter of the same network, with the scheme found for SE on CIFAR-100. To start from the classifier instead:
# load_from=None model.backbone.init_cfg._delete_=True model.backbone.init_cfg.type=Pretrained
# model.backbone.init_cfg.checkpoint=ean://ean_resnet20_se.cifar100
model = dict(backbone=dict(attention='SE', scheme='010-100-000', init_cfg=None))
load_from = 'ean://ean_resnet20_se.shanghaitech_b'

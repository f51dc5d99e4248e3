_base_ = [
    '../_base_/models/counter_resnet20.py',
    '../_base_/datasets/crowd.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# Starts from the ShanghaiTech B counter of the same network, without attention: with it, a border changed counts more. To start from the
# classifier instead: load_from=None model.backbone.init_cfg._delete_=True model.backbone.init_cfg.type=Pretrained
# model.backbone.init_cfg.checkpoint=ean://resnet20.cifar100
model = dict(backbone=dict(attention='SE', scheme='none', init_cfg=None))
load_from = 'ean://resnet20.shanghaitech_b'

_base_ = [
    '../_base_/models/counter_resnet18.py',
    '../_base_/datasets/crowd.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# Starts from the ShanghaiTech B counter of the same network, with the scheme found for SE there. To start from ImageNet's features instead:
# load_from=None model.backbone.init_cfg._delete_=True model.backbone.init_cfg.type=Pretrained
# model.backbone.init_cfg.checkpoint=torchvision://resnet18
model = dict(
    backbone=dict(attention=dict(type='SE', identity_start=True, window=(256, 320)), scheme='ean:shanghaitech_b', init_cfg=None))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
load_from = 'ean://ean_resnet18_se.shanghaitech_b'

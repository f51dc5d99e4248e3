_base_ = [
    '../_base_/models/counter_resnet18.py',
    '../_base_/datasets/crowd.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# The network of resnet18_se_shanghaitech_b, with the scheme found for SE there; starts from ImageNet's features. To start from a counter
# of that config instead: load_from=work_dirs/RUN/epoch_80.pth model.backbone.init_cfg=None
model = dict(backbone=dict(attention=dict(type='SE', identity_start=True, window=(256, 320)), scheme='ean:shanghaitech_b'))
optim_wrapper = dict(optimizer=dict(lr=2e-4))

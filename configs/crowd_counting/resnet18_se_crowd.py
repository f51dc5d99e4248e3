_base_ = [
    '../_base_/models/counter_resnet18.py',
    '../_base_/datasets/crowd.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# The scheme found for SE on ShanghaiTech B.
model = dict(backbone=dict(attention=dict(type='SE', identity_start=True, window=(256, 320)), scheme='ean:shanghaitech_b'))
optim_wrapper = dict(optimizer=dict(lr=2e-4))

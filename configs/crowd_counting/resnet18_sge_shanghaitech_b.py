_base_ = [
    '../_base_/models/counter_resnet18.py',
    '../_base_/datasets/shanghaitech_b.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# Share-full; vanilla is scheme='none'.
model = dict(backbone=dict(attention=dict(type='SGE', identity_start=True), scheme='full'))
optim_wrapper = dict(optimizer=dict(lr=2e-4))

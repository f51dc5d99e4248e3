_base_ = [
    '../_base_/models/segmentor_resnet18.py',
    '../_base_/datasets/voc2012_light.py',
    '../_base_/schedules/segmentor_onecycle.py',
    '../_base_/segmentor_runtime.py',
]
# Share-full; vanilla is scheme='none'.
model = dict(backbone=dict(attention=dict(type='SE', identity_start=True), scheme='full'))

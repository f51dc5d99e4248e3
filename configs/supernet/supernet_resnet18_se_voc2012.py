_base_ = [
    '../_base_/models/segmentor_resnet18.py',
    '../_base_/datasets/voc2012_search.py',
    '../_base_/schedules/segmentor_onecycle.py',
    '../_base_/segmentor_runtime.py',
]
# A Share-full segmentor; each iteration trains a random sub-network (Section 4.2).
model = dict(backbone=dict(attention=dict(type='SE', identity_start=True), scheme='full'))
default_hooks = dict(scheme=dict(type='RandomSchemeHook', p=0.5))
find_unused_parameters = True
train_cfg = dict(val_interval=10)

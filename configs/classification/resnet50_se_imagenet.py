_base_ = [
    '../_base_/models/resnet50_imagenet.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_120e_step.py',
    '../_base_/runtime.py',
]
# The scheme on record; vanilla is scheme='none', Share-full scheme='full', Org-full that with shared=False.
model = dict(backbone=dict(attention='SE', scheme='ean'))

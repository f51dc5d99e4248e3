_base_ = [
    '../_base_/models/resnet50_imagenet.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_120e_step.py',
    '../_base_/runtime.py',
]
# The recorded scheme; vanilla is scheme='none', Share-full is scheme='full', Org-full is scheme='full' with shared=False.
model = dict(backbone=dict(attention='SE', scheme='ean'))

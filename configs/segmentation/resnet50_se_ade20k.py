_base_ = [
    '../_base_/models/segmentor_resnet50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/segmentor_20k.py',
    '../_base_/segmentor_runtime.py',
]
# The recorded scheme; vanilla is scheme='none', Share-full is scheme='full', Org-full is scheme='full' with shared=False.
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(attention='SE', scheme='ean'),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
    test_cfg=dict(shorter_side=512))
train_cfg = dict(max_epochs=63)

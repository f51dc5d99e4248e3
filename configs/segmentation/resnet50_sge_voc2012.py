_base_ = [
    '../_base_/models/segmentor_resnet50.py',
    '../_base_/datasets/voc2012.py',
    '../_base_/schedules/segmentor_20k.py',
    '../_base_/segmentor_runtime.py',
]
# The recorded scheme; vanilla is scheme='none', Share-full is scheme='full', Org-full is scheme='full' with shared=False.
model = dict(backbone=dict(attention='SGE', scheme='ean'))
train_cfg = dict(max_epochs=217)  # 20,000 iterations of 1,464 images

_base_ = [
    '../_base_/models/counter_resnet50.py',
    '../_base_/datasets/shanghaitech_a.py',
    '../_base_/schedules/counter_200e.py',
    '../_base_/counter_runtime.py',
]
# The leading stages of the recorded scheme; vanilla is scheme='none', Share-full is scheme='full', Org-full is scheme='full' with shared=False.
model = dict(backbone=dict(attention='SE', scheme='ean'))
train_dataloader = dict(batch_size=1, dataset=dict(crop=None, scale=(1.0, 1.0), jitter=0.0, gray=0.0, blur=0.0, blank=0.0, last=None))
custom_hooks = []  # no moving average

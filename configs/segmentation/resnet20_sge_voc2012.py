_base_ = [
    '../_base_/models/segmentor_resnet20.py',
    '../_base_/datasets/voc2012_light.py',
    '../_base_/schedules/segmentor_onecycle.py',
    '../_base_/segmentor_runtime.py',
]
# No scheme of SGE has been searched on CIFAR-100 yet: Share-full, its attention trained from the beginning on a plain network.
model = dict(backbone=dict(attention='SGE', scheme='full'))

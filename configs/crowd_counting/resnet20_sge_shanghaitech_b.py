_base_ = [
    '../_base_/models/counter_resnet20.py',
    '../_base_/datasets/shanghaitech_b.py',
    '../_base_/schedules/counter_onecycle.py',
    '../_base_/counter_runtime.py',
]
# Share-full until a search says where to connect; the attention starts untrained, the rest as CIFAR-100's plain ResNet20.
model = dict(backbone=dict(attention='SGE', scheme='full'))

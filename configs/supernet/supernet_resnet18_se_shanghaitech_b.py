_base_ = '../crowd_counting/resnet18_se_shanghaitech_b.py'
# A Share-full network; each iteration trains a random sub-network (Section 4.2), and a tenth of the training images score the schemes.
model = dict(backbone=dict(scheme='full'))
default_hooks = dict(scheme=dict(type='RandomSchemeHook', p=0.5))
find_unused_parameters = True

_base_ = './crowd.py'
# ShanghaiTech part A; the paper's split of its training images.
train_dataloader = dict(dataset=dict(root='crowd/shanghaitech', part='A'))
val_dataloader = dict(dataset=dict(root='crowd/shanghaitech', part='A'))
test_dataloader = dict(dataset=dict(root='crowd/shanghaitech', part='A'))

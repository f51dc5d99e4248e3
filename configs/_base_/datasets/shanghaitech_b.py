_base_ = './crowd.py'
# ShanghaiTech part B; the paper's split of its training images.
train_dataloader = dict(dataset=dict(root='crowd/shanghaitech', part='B'))
val_dataloader = dict(dataset=dict(root='crowd/shanghaitech', part='B'))
test_dataloader = dict(dataset=dict(root='crowd/shanghaitech', part='B'))

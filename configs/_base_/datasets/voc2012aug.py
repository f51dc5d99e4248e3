_base_ = './voc2012.py'
# With the masks of SBD: 10,582 training images.
train_dataloader = dict(dataset=dict(split='trainaug'))

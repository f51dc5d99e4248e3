_base_ = '../supernet/supernet_resnet50_dia_imagenet.py'
# Without `supernet`, the checkpoint is looked for in work_dirs/supernet_resnet50_dia_imagenet.
search = dict(
    supernet=None,
    precision='fp32',
    reward=dict(sparsity=2.0),
    strategy=dict(type='EANStrategy', steps=300))

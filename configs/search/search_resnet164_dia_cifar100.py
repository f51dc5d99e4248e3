_base_ = '../supernet/supernet_resnet164_dia_cifar100.py'
# Without `supernet`, the checkpoint is looked for in work_dirs/supernet_resnet164_dia_cifar100.
search = dict(
    supernet=None,
    precision='fp32',
    reward=dict(sparsity=2.0),
    strategy=dict(type='EANStrategy', steps=1000))

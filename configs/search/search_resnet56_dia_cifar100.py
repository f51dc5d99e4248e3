_base_ = ['../supernet/supernet_resnet56_dia_cifar100.py', '../_base_/search.py']
# Without `supernet`, the checkpoint is taken from work_dirs/supernet_resnet56_dia_cifar100.
search = dict(strategy=dict(type='local', evaluations=300))

_base_ = '../supernet/supernet_resnet20_se_digits.py'
# Without `supernet`, the checkpoint is looked for in work_dirs/supernet_resnet20_se_digits.
search = dict(
    supernet=None,
    precision='fp32',
    reward=dict(sparsity=2.0),
    strategy=dict(type='EANStrategy', steps=150))

_base_ = ['../supernet/supernet_resnet20_se_digits.py', '../_base_/search.py']
# Without `supernet`, the checkpoint is taken from work_dirs/supernet_resnet20_se_digits.
search = dict(strategy=dict(type='ean', evaluations=450))

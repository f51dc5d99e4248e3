_base_ = ['../supernet/supernet_resnet50_se_imagenet.py', '../_base_/search.py']
# Without `supernet`, the checkpoint is taken from work_dirs/supernet_resnet50_se_imagenet.
search = dict(strategy=dict(type='ean', evaluations=900))

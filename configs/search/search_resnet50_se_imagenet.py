_base_ = ['../supernet/supernet_resnet50_se_imagenet.py', '../_base_/search.py']
# Without `supernet`, the checkpoint is looked for in work_dirs/supernet_resnet50_se_imagenet.
search = dict(strategy=dict(type='ean', evaluations=900))

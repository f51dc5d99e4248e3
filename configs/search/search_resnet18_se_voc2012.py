_base_ = ['../supernet/supernet_resnet18_se_voc2012.py', '../_base_/segmentor_search.py']
# All 64 schemes. Without `supernet`, the checkpoint is taken from work_dirs/supernet_resnet18_se_voc2012.

_base_ = ['../supernet/supernet_resnet18_se_shanghaitech_b.py', '../_base_/counter_search.py']
# All 64 schemes. Without `supernet`, the checkpoint is taken from work_dirs/supernet_resnet18_se_shanghaitech_b.

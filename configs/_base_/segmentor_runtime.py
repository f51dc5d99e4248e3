_base_ = './runtime.py'
# What every run of a segmentor shares. Types without a prefix are mmsegmentation's, or of those that it builds on.
custom_imports = dict(imports=['ean_core', 'tasks.segmentation.register'], allow_failed_imports=False)
default_scope = 'mmseg'
default_hooks = dict(dropout=dict(type='DropoutSeedHook'), tables=dict(type='MetricTableHook'))
sync_bn = 'torch'  # batch norms of several processes see all of their images

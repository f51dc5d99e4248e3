_base_ = './runtime.py'
# Settings shared by all segmentor runs. Types without a prefix come from mmsegmentation or its parent libraries.
custom_imports = dict(imports=['ean_core', 'tasks.segmentation.register'], allow_failed_imports=False)
default_scope = 'mmseg'
default_hooks = dict(dropout=dict(type='DropoutSeedHook'), tables=dict(type='MetricTableHook'))
sync_bn = 'torch'  # batch norms use the images of all processes

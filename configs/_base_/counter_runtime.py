_base_ = './runtime.py'
# Settings shared by all counter runs.
custom_imports = dict(imports=['ean_core', 'tasks.crowd_counting.register'], allow_failed_imports=False)
default_hooks = dict(
    checkpoint=dict(save_best='count/MAE', rule='less'),
    tables=dict(type='MetricTableHook'))

_base_ = './runtime.py'
# What every run of a counter shares.
custom_imports = dict(imports=['ean_core', 'tasks.crowd_counting.register'], allow_failed_imports=False)
default_hooks = dict(
    checkpoint=dict(save_best='count/MAE', rule='less'),
    tables=dict(type='MetricTableHook'))

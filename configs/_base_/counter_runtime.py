_base_ = './runtime.py'
# Settings shared by all counter runs. An exponential moving average of the weights is what is validated, saved and tested. The last
# one represents the run: the best of many validations on few images would be the luckiest one.
custom_imports = dict(imports=['ean_core', 'tasks.crowd_counting.register'], allow_failed_imports=False)
default_hooks = dict(
    start=dict(type='StartValidationHook'),
    last=dict(type='LastEpochsHook', epochs=10),
    familiar=dict(type='FamiliarHook'),
    tables=dict(type='MetricTableHook'))
custom_hooks = [dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.01, gamma=10)]  # over the last tenth of the iterations, at most about 100

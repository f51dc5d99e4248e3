# Settings shared by all runs. Also registers EAN's classes for OpenMMLab's own tools.
custom_imports = dict(imports=['ean_core'], allow_failed_imports=False)
runner_type = 'EANRunner'
default_scope = 'mmengine'
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sync_buffers=dict(type='SyncBuffersHook'),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    record=dict(type='RunRecordHook'),
    finite=dict(type='FiniteHook'),
    resume_validation=dict(type='ResumeValidationHook'),
    progress=dict(type='ProgressHook'),
    progress_file=dict(type='ProgressFileHook'),
)
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)

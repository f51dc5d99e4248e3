# How schemes are scored, compared and selected.
search = dict(
    supernet=None,  # checkpoint; by default, that of the config that this one inherits from, in work_dirs
    precision='fp32',  # or 'bf16'; finalists are scored in fp32
    reward=dict(accuracy=1.0, sparsity=2.0),  # weights of percent and of fractions; or latency=2.0, with table=FILE for another device
    finalists=dict(count=20, images=1000),  # scored again, with batch norms estimated on this many training images
    rule=None,  # 'mode', 'best-seen' or 'front'; by default, the strategy's own
    scores=None,  # folder of stored scores; by default, that of the supernet
    strategy=dict(type='ean', evaluations=900))

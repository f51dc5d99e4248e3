# How schemes are scored, compared and chosen.
search = dict(
    supernet=None,  # checkpoint; the one in work_dirs of the config that this one searches
    precision='fp32',  # or 'bf16'; finalists are scored in fp32
    reward=dict(accuracy=1.0, sparsity=2.0),  # of percent and of shares; or latency=2.0, and table=FILE of another device
    finalists=dict(count=20, images=1000),  # scored again, batch norms estimated on so many training images
    rule=None,  # 'mode', 'best-seen' or 'front'; the strategy's own
    scores=None,  # folder of remembered scores; that of the supernet
    strategy=dict(type='ean', evaluations=900))

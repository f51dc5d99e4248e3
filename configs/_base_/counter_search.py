_base_ = './search.py'
# The search of a counter: full sparsity is worth half a person of the mean absolute error.
search = dict(
    reward=dict(_delete_=True, MAE=1.0, sparsity=0.5),
    strategy=dict(_delete_=True, type='exhaustive'))

# The attention and the connections are set by the config that inherits from this one.
model = dict(
    type='ImageClassifier',
    num_classes=1000,
    data_preprocessor=dict(type='ImagePreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(type='EANResNet', depth=50))

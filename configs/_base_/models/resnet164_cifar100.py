# The attention and the connections are set by the config that inherits from this one.
model = dict(
    type='ImageClassifier',
    num_classes=100,
    data_preprocessor=dict(type='ImagePreprocessor', mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418]),
    backbone=dict(type='EANResNetCIFAR', depth=164))

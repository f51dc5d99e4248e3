# The attention and the connections are set by the config that inherits from this one.
model = dict(
    type='ImageClassifier',
    num_classes=10,
    data_preprocessor=dict(type='ImagePreprocessor', mean=[77.8], std=[95.9]),
    backbone=dict(type='EANResNetCIFAR', depth=20, in_channels=1))

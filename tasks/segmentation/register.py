"""Register the data sets, network, metric, and all of mmsegmentation, for ``custom_imports`` in segmentor configs."""

from . import dataset, metrics, network

__all__ = ["dataset", "metrics", "network"]

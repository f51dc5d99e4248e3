"""Register the data set, network, losses and metric with mmengine, for ``custom_imports`` in counter configs."""

from . import dataset, losses, metrics, network

__all__ = ["dataset", "losses", "metrics", "network"]

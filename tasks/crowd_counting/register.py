"""Register the data set, network, losses, metric and hook with mmengine, for ``custom_imports`` in counter configs."""

from . import dataset, familiar, losses, metrics, network

__all__ = ["dataset", "familiar", "losses", "metrics", "network"]

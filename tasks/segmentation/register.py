"""Register data sets, network, loss, metric, and all of mmsegmentation, for ``custom_imports`` in segmentor configs."""

from . import dataset, losses, metrics, network

__all__ = ["dataset", "losses", "metrics", "network"]

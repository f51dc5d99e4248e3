"""Registers data sets, network, metric, and all of mmsegmentation: for ``custom_imports`` in configs of segmentors."""

from . import dataset, metrics, network

__all__ = ["dataset", "metrics", "network"]

"""Register networks, data sets, hooks, the runner and ``ean://`` addresses with mmengine; provide mmcv's stand-in."""

from . import attention, backbone, classifier
from .common import mmcv_ops
from .data import folder, resident, sampler
from .runs import capture, hooks, runner, supernet, terminal
from .weights import addresses

__all__ = [
    "addresses",
    "attention",
    "backbone",
    "capture",
    "classifier",
    "folder",
    "hooks",
    "resident",
    "runner",
    "sampler",
    "supernet",
    "terminal",
]

mmcv_ops.provide_stand_in()

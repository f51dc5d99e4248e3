"""Efficient attention networks: backbones, schemes, supernet, search, timing. Importing registers them in mmengine."""

from . import data
from .attention import ATTENTION, Attention
from .backbone import EANResNet, EANResNetCIFAR
from .classifier import ImageClassifier
from .common import mmcv_ops
from .recorded import RECORDED, RecordedScheme
from .runs import capture, hooks, runner, supernet
from .scheme import ConnectionScheme
from .weights import addresses

__all__ = [
    "ATTENTION",
    "RECORDED",
    "Attention",
    "ConnectionScheme",
    "EANResNet",
    "EANResNetCIFAR",
    "ImageClassifier",
    "RecordedScheme",
    "addresses",
    "capture",
    "data",
    "hooks",
    "runner",
    "supernet",
]
__version__ = "0.1.0"

mmcv_ops.provide_stand_in()

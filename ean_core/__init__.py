"""Efficient attention networks: backbones, schemes, supernet, search, timing. Importing registers them in mmengine."""

from . import addresses, capture, data, mmcv_ops, runner, supernet
from .attention import ATTENTION, Attention
from .backbone import EANResNet, EANResNetCIFAR
from .classifier import ImageClassifier
from .recorded import RECORDED, RecordedScheme
from .scheme import ConnectionScheme

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
    "runner",
    "supernet",
]
__version__ = "0.1.0"

mmcv_ops.provide_stand_in()

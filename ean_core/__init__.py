"""Efficient attention networks: backbones, schemes, supernet, search, timing. Importing registers them in mmengine."""

from .attention import ATTENTION, Attention
from .backbone import EANResNet, EANResNetCIFAR
from .recorded import RECORDED, RecordedScheme
from .scheme import ConnectionScheme

__all__ = [
    "ATTENTION",
    "RECORDED",
    "Attention",
    "ConnectionScheme",
    "EANResNet",
    "EANResNetCIFAR",
    "RecordedScheme",
]
__version__ = "0.1.0"

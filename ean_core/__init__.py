"""Efficient attention networks: backbones, schemes, supernet, search, timing. Importing registers them in mmengine."""

from typing import TYPE_CHECKING

from . import register as _register  # noqa: F401
from .common.lazy import contents

if TYPE_CHECKING:
    from . import data
    from .attention import ATTENTION, Attention
    from .backbone import EANResNet, EANResNetCIFAR
    from .classifier import ImageClassifier
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

__getattr__, __dir__ = contents(
    __name__,
    {
        "ATTENTION": ".attention",
        "Attention": ".attention",
        "EANResNet": ".backbone",
        "EANResNetCIFAR": ".backbone",
        "ImageClassifier": ".classifier",
        "RECORDED": ".recorded",
        "RecordedScheme": ".recorded",
        "ConnectionScheme": ".scheme",
        "addresses": ".weights.addresses",
        "capture": ".runs.capture",
        "data": ".data",
        "hooks": ".runs.hooks",
        "runner": ".runs.runner",
        "supernet": ".runs.supernet",
    },
)

"""Inference: networks in their fastest form, and timing networks side by side and part by part."""

from .deploy import DeployedBackbone, deploy, fold
from .gates import Gate, register_gate
from .latency import BlockTimes, time_blocks
from .timing import Timing, time_networks

__all__ = [
    "BlockTimes",
    "DeployedBackbone",
    "Gate",
    "Timing",
    "deploy",
    "fold",
    "register_gate",
    "time_blocks",
    "time_networks",
]

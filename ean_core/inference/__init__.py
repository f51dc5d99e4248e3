"""Inference: deployment in the fastest form, and timing of networks side by side and block by block."""

from .deploy import DeployedBackbone, deploy, fold
from .gates import Gate, register_gate
from .latency import BlockProfile, BlockTimes, profile_blocks, time_blocks
from .timing import Timing, time_networks

__all__ = [
    "BlockProfile",
    "BlockTimes",
    "DeployedBackbone",
    "Gate",
    "Timing",
    "deploy",
    "fold",
    "profile_blocks",
    "register_gate",
    "time_blocks",
    "time_networks",
]

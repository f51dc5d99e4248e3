"""Inference: timing networks side by side, and their parts one by one."""

from .latency import BlockTimes, time_blocks
from .timing import Timing, time_networks

__all__ = ["BlockTimes", "Timing", "time_blocks", "time_networks"]

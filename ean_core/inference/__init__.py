"""Inference: timing networks side by side."""

from .timing import Timing, time_networks

__all__ = ["Timing", "time_networks"]

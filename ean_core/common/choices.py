"""Choices of the commands that time and export networks, without the code that does it."""

from __future__ import annotations

from enum import Enum


class Form(str, Enum):
    """Form in which a network is timed."""

    eager = "eager"
    folded = "folded"
    deployed = "deployed"
    compiled = "compiled"
    captured = "captured"


class Format(str, Enum):
    """File format of an exported network."""

    safetensors = "safetensors"
    onnx = "onnx"
    pt2 = "pt2"

"""Check that a tensor is a batch of images that a network can take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_images(x: Any, channels: int, network: str) -> None:
    """Refuse a tensor that is not a batch of float images with the network's channels.

    Placeholders of symbolic tracing have no shape and are passed on, and so is everything in ``torch.jit.trace``, where
    a comparison would be recorded.

    Args:
        x: what the network is called with.
        channels: the network's input channels.
        network: name of the network, for the message.

    Raises:
        ValueError: if a tensor has another shape or an integer type.

    Examples:
        >>> check_images(torch.zeros(3, 32, 32), 3, "EANResNet")
        Traceback (most recent call last):
        ...
        ValueError: EANResNet takes float images (N, 3, H, W), got torch.float32 (3, 32, 32); x[None] adds the batch \
dimension
    """
    if not isinstance(x, Tensor) or torch.jit.is_tracing():
        return
    if x.ndim == 4 and x.shape[1] == channels and x.is_floating_point():
        return
    if x.ndim == 3:
        hint = "x[None] adds the batch dimension"
    elif x.ndim != 4:
        hint = "give one batch of images"
    elif x.shape[1] != channels and x.shape[3] == channels:
        hint = "x.permute(0, 3, 1, 2) moves the channels to their place"
    elif x.shape[1] != channels:
        hint = f"build the network with in_channels={x.shape[1]}, or convert the images"
    else:
        hint = "normalize them with the model's data_preprocessor or the zoo's transforms(), or convert with x.float()"
    raise ValueError(f"{network} takes float images (N, {channels}, H, W), got {x.dtype} {tuple(x.shape)}; {hint}")

"""Random numbers that depend only on where a run stands, never on how it got there."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a draw is for: one seed gives each of these a sequence of its own."""

    ORDER = 0
    AUGMENTATION = 1
    SCHEME = 2
    STRATEGY = 3
    CALIBRATION = 4


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by non-negative integers such as ``(seed, Stream.SCHEME, iteration)``.

    Every random draw in training comes from one of these, so that a run resumed from a checkpoint draws what the
    uninterrupted run drew, and all ranks agree. Different keys give independent streams (NumPy's SeedSequence).

    Examples:
        >>> torch.rand(1, generator=generator(0, 3)) == torch.rand(1, generator=generator(0, 3))
        tensor([True])
    """
    # SeedSequence pads with zeros: without their number in front, (0,) and (0, 0) would be one key.
    low, high = (int(word) for word in np.random.SeedSequence((len(key), *key)).generate_state(2))
    return torch.Generator(device).manual_seed(high << 31 ^ low)

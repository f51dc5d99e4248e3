"""Random numbers that depend only on where a run stands, never on how it got there."""

from __future__ import annotations

import numpy as np
import torch


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by a tuple of non-negative integers such as ``(seed, epoch, iteration)``.

    Every random draw in training comes from one of these, so that a run resumed from a checkpoint draws what the
    uninterrupted run drew, and all ranks agree. Different keys give independent streams (NumPy's SeedSequence).

    Examples:
        >>> torch.rand(1, generator=generator(0, 3)) == torch.rand(1, generator=generator(0, 3))
        tensor([True])
    """
    low, high = (int(word) for word in np.random.SeedSequence(key).generate_state(2))
    return torch.Generator(device).manual_seed(high << 31 ^ low)

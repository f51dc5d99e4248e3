"""Random numbers that depend only on where a run stands, never on how it got there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
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
    DROPOUT = 5


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by non-negative integers such as ``(seed, Stream.SCHEME, iteration)``.

    Every random draw in training comes from one of these, so that a run resumed from a checkpoint draws what the
    uninterrupted run drew, and all ranks agree. Different keys give independent streams (NumPy's SeedSequence).

    Examples:
        >>> torch.rand(1, generator=generator(0, 3)) == torch.rand(1, generator=generator(0, 3))
        tensor([True])
    """
    return torch.Generator(device).manual_seed(seed_of(*key))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Have other libraries' random draws depend on a key, too: of Python's, NumPy's and, on CPUs, PyTorch's own
    generators, which are afterwards as they were.

    Examples:
        >>> with seeded(0, 1):
        ...     first = random.random()
        >>> with seeded(0, 1):
        ...     random.random() == first
        True
    """
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    seed = seed_of(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


def seed_of(*key: int) -> int:
    """One number for a key, of 63 bits."""
    # SeedSequence pads with zeros: without their number in front, (0,) and (0, 0) would be one key.
    low, high = (int(word) for word in np.random.SeedSequence((len(key), *key)).generate_state(2))
    return high << 31 ^ low

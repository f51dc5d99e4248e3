"""Random numbers that depend only on a run's current position, not on interruptions before it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """Purpose of a random draw; each purpose has an independent sequence under the same seed."""

    ORDER = 0
    AUGMENTATION = 1
    SCHEME = 2
    STRATEGY = 3
    CALIBRATION = 4
    DROPOUT = 5


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by non-negative integers such as ``(seed, Stream.SCHEME, iteration)``.

    Every random draw in training comes from such a generator, so a run resumed from a checkpoint draws the same values
    as an uninterrupted run, and all ranks agree. Different keys give independent streams (NumPy's SeedSequence).

    Examples:
        >>> torch.rand(1, generator=generator(0, 3)) == torch.rand(1, generator=generator(0, 3))
        tensor([True])
    """
    return torch.Generator(device).manual_seed(seed_of(*key))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch (CPU) by a key, and restore their states afterwards.

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
    """A 63-bit integer derived from a key."""
    # SeedSequence pads with zeros: without the length in front, (0,) and (0, 0) would be the same key.
    low, high = (int(word) for word in np.random.SeedSequence((len(key), *key)).generate_state(2))
    return high << 31 ^ low

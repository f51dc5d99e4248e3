"""Correlation of two measurements of the same schemes, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ean_core.common.seeding import Stream, generator
from ean_core.scheme import ConnectionScheme


@dataclass(frozen=True)
class Correlation:
    """Correlation of two measurements of the same items, with 95 % bootstrap intervals.

    Args:
        pearson, spearman: coefficients in ``[-1, 1]``.
        pearson_interval, spearman_interval: bootstrap percentile intervals.
        count: number of items.
    """

    pearson: float
    pearson_interval: tuple[float, float]
    spearman: float
    spearman_interval: tuple[float, float]
    count: int


def correlation(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Correlation:
    """Correlate two measurements of the same items.

    Args:
        first, second: measurements of the same length, at least 3.
        seed: seed of the resampling.

    Raises:
        ValueError: if there are too few values, or one of the two is constant.

    Examples:
        >>> found = correlation([1, 2, 3, 4], [2, 4, 6, 8.5])
        >>> round(found.pearson, 3), round(found.spearman, 3)
        (0.998, 1.0)
    """
    pairs = np.array([first, second], dtype=float).T  # (n, 2)
    if len(pairs) < 3 or not np.ptp(pairs, axis=0).all():
        raise ValueError(f"a correlation needs at least 3 pairs with different values, got {pairs.tolist()}")
    draws = np.random.default_rng(seed)
    resampled = pairs[draws.integers(len(pairs), size=(5000, len(pairs)))]  # (R, n, 2)
    resampled = resampled[np.ptp(resampled, axis=1).all(1)]  # a sample with a constant coordinate has no correlation

    def interval(values: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(_pearson(values), (0.025, 0.975))
        return float(low), float(high)

    ranks = stats.rankdata(pairs, axis=0)
    return Correlation(
        pearson=float(_pearson(pairs[None])[0]),
        pearson_interval=interval(resampled),
        spearman=float(_pearson(ranks[None])[0]),
        spearman_interval=interval(stats.rankdata(resampled, axis=1)),
        count=len(pairs),
    )


def sample_schemes(stages: Sequence[int], count: int, seed: int) -> list[ConnectionScheme]:
    """Draw different random schemes, before any of them is scored.

    Raises:
        ValueError: if ``count`` is below 3 or exceeds the number of schemes.
    """
    if not 3 <= count <= 2 ** sum(stages):
        raise ValueError(
            f"a correlation over stages {tuple(stages)} takes 3 to {2 ** sum(stages)} schemes, got {count}"
        )
    draws = generator(seed, Stream.STRATEGY)
    chosen: dict[ConnectionScheme, None] = {}
    while len(chosen) < count:
        chosen[ConnectionScheme.random(stages, 0.5, draws)] = None
    return list(chosen)


def _pearson(pairs: np.ndarray) -> np.ndarray:
    """Return the coefficient ``(R,)`` of each set of pairs ``(R, n, 2)``."""
    centred = pairs - pairs.mean(1, keepdims=True)
    product = (centred[..., 0] * centred[..., 1]).sum(1)
    return product / np.sqrt((centred**2).sum(1).prod(1))

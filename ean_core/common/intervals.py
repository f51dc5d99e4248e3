"""95 % intervals of means over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .text import number_of

#: Resamples of a bootstrap, and its random seed: the same values give the same interval.
RESAMPLES, SEED = 10_000, 0
#: Fewer images do not tell two networks apart, whatever their bootstrap interval.
FEWEST = 10


class Interval(NamedTuple):
    """A mean, or a difference of means, and its 95 % interval."""

    mean: float
    low: float
    high: float

    def text(self, digits: int = 1, sign: str = "") -> str:
        """The mean and its interval in words; the mean alone if they are equal, as over a single image.

        Examples:
            >>> Interval(11.19, 8.06, 14.98).text(), Interval(-0.84, -2.1, 0.4).text(sign='+')
            ('11.2 [8.1, 15.0]', '-0.8 [-2.1, +0.4]')
            >>> Interval(10.1, 10.1, 10.1).text()
            '10.1'
        """
        mean, low, high = (f"{value:{sign}.{digits}f}" for value in self)
        return mean if self.low == self.high else f"{mean} [{low}, {high}]"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean over images and its 95 % interval, by a percentile bootstrap over the images.

    Args:
        values: one value per image, e.g. the difference of two counters' absolute errors.

    Raises:
        ValueError: if there are no values.

    Examples:
        >>> mean_interval([2.0, 2.0, 2.0])
        Interval(mean=2.0, low=2.0, high=2.0)
    """
    if not len(values):
        raise ValueError("expected a value per image, got none")
    every = np.asarray(values, np.float64)
    draws = np.random.default_rng(SEED)
    means = np.empty(RESAMPLES)
    step = max(1, 2_000_000 // len(every))  # resamples at once, to bound memory
    for start in range(0, RESAMPLES, step):
        chosen = draws.integers(0, len(every), (min(step, RESAMPLES - start), len(every)))
        means[start : start + step] = every[chosen].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(every.mean()), float(low), float(high))


def told_apart(difference: Interval, images: int) -> str:
    """Whether two networks differ, by the interval of their difference over this number of images.

    Examples:
        >>> told_apart(Interval(-0.8, -1.2, -0.4), 40), told_apart(Interval(-0.8, -1.2, -0.4), 9)
        ('told apart', '9 images are too few to tell them apart')
    """
    if images < FEWEST:
        return f"{number_of(images, 'image')} {'is' if images == 1 else 'are'} too few to tell them apart"
    return "not told apart by these images" if difference.low <= 0 <= difference.high else "told apart"

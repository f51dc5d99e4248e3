"""Differences of two networks measured on the same images: exact tests, and intervals over images and over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ean_core.common.intervals import Interval

#: Whether each image was classified correctly, ``(n,)``.
Flags = NDArray[np.bool_]
#: Most seeds that :func:`seeds_needed` considers.
MOST_SEEDS = 1000


class McNemar(NamedTuple):
    """Images that only one of two classifiers got right.

    Args:
        b: number of images that only the first got right.
        c: number of images that only the second got right.
    """

    b: int
    c: int

    @classmethod
    def of(cls, first: Flags, second: Flags) -> McNemar:
        """Count the images."""
        return cls(int((first & ~second).sum()), int((second & ~first).sum()))

    @property
    def p(self) -> float:
        """Exact two-sided p-value of McNemar's test: each of these images falls to either side with probability 1/2.

        Examples:
            >>> round(McNemar(10, 2).p, 6), McNemar(0, 0).p
            (0.038574, 1.0)
        """
        return float(stats.binomtest(self.b, self.b + self.c).pvalue) if self.b + self.c else 1.0


def over_images(firsts: Sequence[Flags], seconds: Sequence[Flags]) -> Interval:
    """Difference of two classifiers' accuracies on the same images, in points, with a 95 % interval over images.

    The interval is Agresti and Min's for matched proportions ("Simple improved confidence intervals for comparing
    matched proportions", Statistics in Medicine, 2005): Wald's after adding 1/2 to each of the four counts. With
    several trainings, it is that of their mean difference on each image, and holds for these trainings only.

    Args:
        firsts, seconds: of each training of the first and of the second, at least one.

    Examples:
        >>> right = np.arange(100) < 80
        >>> over_images([right], [right]).text(sign='+', digits=2)
        '+0.00 [-1.92, +1.92]'
    """
    gaps = np.mean([np.subtract(a, b, dtype=float) for a, b in zip(firsts, seconds, strict=True)], axis=0)  # (n,)
    images = len(gaps) + 2
    center = gaps.sum() / images
    variance = ((gaps**2).sum() + 1) / images - center**2
    half = 1.96 * math.sqrt(variance / images)
    return _points(gaps.mean(), center - half, center + half)


def over_seeds(gaps: Sequence[float]) -> Interval | None:
    """Mean of the differences of several seeds, with Student's 95 % interval; None if they have no spread.

    Examples:
        >>> over_seeds([1.0, 1.2, 0.8]).text(sign='+', digits=2)
        '+1.00 [+0.50, +1.50]'
        >>> over_seeds([1.0]) is None
        True
    """
    if len({round(gap, 9) for gap in gaps}) < 2:
        return None
    mean = statistics.fmean(gaps)
    half = _half_width(statistics.stdev(gaps), len(gaps))
    return Interval(mean, mean - half, mean + half)


def two_samples(first: float, second: float, images: int) -> Interval:
    """Difference of two accuracies, in points, with the 95 % interval of two independent samples of images.

    For networks of which only the accuracies are known. On the same images the true interval is narrower.

    Args:
        first, second: accuracies in percent.
        images: number of images that each was measured on.

    Examples:
        >>> two_samples(60.0, 50.0, 100).text(sign='+', digits=2)
        '+10.00 [-3.72, +23.72]'
    """
    half = 1.96 * math.sqrt(sum(share * (100 - share) for share in (first, second)) / images)
    return Interval(first - second, first - second - half, first - second + half)


def images_needed(found: Interval, bound: float, images: int) -> int | None:
    """Images with which the interval of an equal difference would lie above a bound, to two significant digits; None
    if the difference itself does not lie above it.

    Examples:
        >>> images_needed(Interval(0.5, -0.5, 1.5), 0.0, 10_000)
        40000
    """
    if found.mean <= bound:
        return None
    needed = images * ((found.high - found.low) / 2 / (found.mean - bound)) ** 2
    unit = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(round(needed / unit, 6)) * unit


def seeds_needed(gaps: Sequence[float], bound: float) -> int | None:
    """Seeds with which Student's interval of equal mean and spread would lie above a bound; None if the mean does not
    lie above it, or more than :data:`MOST_SEEDS` are needed.

    Examples:
        >>> seeds_needed([0.1, 0.5, 0.9], 0.0)
        5
    """
    mean, deviation = statistics.fmean(gaps), statistics.stdev(gaps)
    enough = (n for n in range(len(gaps), MOST_SEEDS + 1) if mean - _half_width(deviation, n) > bound)
    return next(enough, None) if mean > bound else None


def _half_width(deviation: float, seeds: int) -> float:
    return float(stats.t.ppf(0.975, seeds - 1)) * deviation / math.sqrt(seeds)


def _points(*shares: Any) -> Interval:
    return Interval(*(100 * float(share) for share in shares))

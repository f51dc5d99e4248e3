"""Counting errors: MAE, RMSE and NAE, bootstrap intervals over images, and each image's error in a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from ean_core.common.record import csv_text, read_small, write_text

#: Resamples of a bootstrap, and its random seed: the same errors give the same interval.
RESAMPLES, SEED = 10_000, 0


def count_errors(counts: Sequence[float], truths: Sequence[float]) -> dict[str, float]:
    """Compute counting errors.

    Args:
        counts: predicted number of people, one per image.
        truths: number of annotated points, one per image.

    Returns:
        ``MAE``, the mean absolute error; ``RMSE``, the root mean squared error, which crowd-counting papers call MSE;
        ``NAE``, the mean error relative to the true count, over the images with people (0 if there are none).

    Raises:
        ValueError: if there are no images, the lengths differ, or a count is not finite.

    Examples:
        >>> count_errors([10.0, 4.0], [12, 4])
        {'MAE': 1.0, 'RMSE': 1.4142135623730951, 'NAE': 0.08333333333333333}
    """
    if not counts or len(counts) != len(truths):
        raise ValueError(f"expected a count and a truth per image, got {len(counts)} and {len(truths)}")
    wrong = [count for count in counts if not math.isfinite(count)]
    if wrong:
        raise ValueError(f"{len(wrong)} of {len(counts)} counts are not finite, the first {wrong[0]}")
    errors = [abs(count - truth) for count, truth in zip(counts, truths, strict=True)]
    shares = [error / truth for error, truth in zip(errors, truths, strict=True) if truth]
    return {
        "MAE": sum(errors) / len(errors),
        "RMSE": math.sqrt(sum(error**2 for error in errors) / len(errors)),
        "NAE": sum(shares) / len(shares) if shares else 0.0,
    }


class Interval(NamedTuple):
    """A mean over images, and its 95 % bootstrap interval."""

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
        values: one value per image: its absolute error, or the difference of two counters' absolute errors.

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


@METRICS.register_module()
class CountMetric(BaseMetric):
    """:func:`count_errors` as ``count/MAE``, ``count/RMSE``, ``count/NAE``; the truth is the number of points.

    The MAE of several images is logged with its 95 % interval, and the interval is kept in :attr:`intervals` for the
    record of a test.

    Args:
        csv: file to write, one line per image; not written if None. ``MetricTableHook`` sets it for tests.
    """

    #: 95 % intervals of the last evaluation, by name of the metric.
    intervals: dict[str, list[float]]

    default_prefix = "count"
    table = "counts.csv"

    def __init__(self, csv: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.csv = csv
        self.intervals = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results.extend((sample["name"], sample["count"], sample["points"]) for sample in data_samples)

    def compute_metrics(self, results: list[tuple[str, float, int]]) -> dict[str, float]:
        if self.csv:
            write_text(Path(self.csv), counts_csv(results))
        _, counts, truths = zip(*results, strict=True)
        errors = count_errors(counts, truths)
        self.intervals = {}
        if len(counts) > 1:
            mae = mean_interval([abs(count - truth) for count, truth in zip(counts, truths, strict=True)])
            self.intervals = {f"{self.default_prefix}/MAE": [mae.low, mae.high]}
            print_log(f"MAE {mae.text()} over {len(counts)} images", "current")
        return errors


def counts_csv(results: Sequence[tuple[str, float, int]]) -> str:
    """One line per image: name, true number of people, predicted number, and the difference."""
    lines = ((name, truth, f"{count:.3f}", f"{count - truth:+.3f}") for name, count, truth in results)
    return csv_text(("image", "people", "counted", "error"), lines)


def read_errors(path: Path) -> list[float]:
    """Absolute error of each image in a file of :func:`counts_csv`, in order."""
    lines = csv.DictReader(io.StringIO(read_small(path).decode("utf-8")))
    return [abs(float(line["counted"]) - float(line["people"])) for line in lines]

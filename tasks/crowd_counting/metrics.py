"""Counting errors: MAE, RMSE and NAE, bootstrap intervals over images, and each image's error in a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from ean_core.common.intervals import mean_interval
from ean_core.common.record import csv_text, read_small, write_text


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


def read_errors(folder: Path) -> list[tuple[str, float]]:
    """Name and absolute error of each image in the table that a test left in a folder, in order; empty if there is
    none."""
    path = folder / CountMetric.table
    if not path.exists():
        return []
    lines = csv.DictReader(io.StringIO(read_small(path).decode("utf-8")))
    return [(line["image"], abs(float(line["counted"]) - float(line["people"]))) for line in lines]

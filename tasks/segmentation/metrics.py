"""mIoU, mAcc and aAcc, with a table per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import METRICS
from torch import Tensor

from ean_core.common.record import csv_text, write_text

from .library import IoUMetric


@METRICS.register_module()
class ClassIoU(IoUMetric):
    """mmsegmentation's ``IoUMetric`` (``mIoU``, ``mAcc``, ``aAcc`` in percent), with a table of the classes.

    Args:
        csv: file to write, one line per class; not written if None. ``MetricTableHook`` sets it for tests.
        others: arguments of ``IoUMetric``.
    """

    table = "classes.csv"

    def __init__(self, csv: str | None = None, **others: Any) -> None:
        super().__init__(**others)
        self.csv = csv

    def compute_metrics(self, results: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> dict[str, float]:
        if self.csv and results:  # empty if predictions are only written
            sums = [sum(part.double() for part in parts) for parts in zip(*results, strict=True)]
            write_text(Path(self.csv), classes_csv(self.dataset_meta["classes"], *sums))
        return super().compute_metrics(list(results))


def classes_csv(names: Sequence[str], intersection: Tensor, union: Tensor, predicted: Tensor, annotated: Tensor) -> str:
    """One line per class: IoU and accuracy in percent, empty if undefined, and the annotated and predicted pixels.

    Args:
        names: class names.
        intersection, union, predicted, annotated: number of pixels of each class ``(classes,)``.
    """
    lines = []
    for name, *counts in zip(names, intersection, union, predicted, annotated, strict=True):
        both, either, answered, there = (int(count) for count in counts)
        shares = [f"{100 * both / whole:.2f}" if whole else "" for whole in (either, there)]
        lines.append((name, *shares, there, answered))
    return csv_text(("class", "IoU", "accuracy", "annotated", "predicted"), lines)

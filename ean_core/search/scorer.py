"""How a task scores the sub-networks of a supernet: from a batch to numbers per image, and from these to its metric.

A task names its scorer in the registry (:attr:`~ean_core.common.tasks.Task.scorer`).
"""

from __future__ import annotations

import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ean_core.classifier import ImageClassifier, label_ranks
from ean_core.common.tasks import Metric, known_tasks, task_of_network

#: Numbers of each image, ``(n,)`` or ``(n, k)``, from which a task computes its metric.
Rows = NDArray[Any]


class Score(float):
    """Value of a metric, with its standard error in the metric's unit.

    Examples:
        >>> score = Score(70.5, 0.3)
        >>> score == 70.5, score.standard_error
        (True, 0.3)
    """

    standard_error: float

    def __new__(cls, value: float, standard_error: float = 0.0) -> Score:
        made = super().__new__(cls, value)
        made.standard_error = standard_error
        return made


def span(value: float, standard_error: float) -> tuple[float, float]:
    """Return the 95 % interval of a normal distribution.

    Examples:
        >>> span(70.0, 0.5)
        (69.02, 70.98)
    """
    return value - 1.96 * standard_error, value + 1.96 * standard_error


@dataclass(frozen=True)
class Difference:
    """Paired difference of two schemes over the same images, in the metric's unit.

    Args:
        value: score of the first minus that of the second.
        standard_error: standard error of the value.
        interval: 95 % bootstrap interval over images, for a metric that is not a mean over images; otherwise None.
    """

    value: float
    standard_error: float
    interval: tuple[float, float] | None = None

    @property
    def span(self) -> tuple[float, float]:
        """95 % interval: that of the bootstrap, or of a normal distribution."""
        return self.interval or span(self.value, self.standard_error)

    def text(self, unit: str = "") -> str:
        """Describe the difference.

        Examples:
            >>> Difference(-0.5, 0.25).text("people"), Difference(1.0, 0.5, (0.0, 2.0)).text("%")
            ('-0.50 ± 0.25 people', '+1.00 ± 0.50 % (95 % interval +0.00 to +2.00)')
        """
        span = "" if self.interval is None else " (95 % interval {:+.2f} to {:+.2f})".format(*self.interval)
        return f"{self.value:+.2f} ± {self.standard_error:.2f} {unit}".rstrip() + span


class Scorer(ABC):
    """Scores networks of one task on its validation batches.

    A batch is prepared once; predictions are then read from it for many schemes. Meanwhile the evaluator replaces the
    network's backbone by known feature maps, so everything around the backbone (padding, tiles, heads, resizing) is
    that of an ordinary validation.

    Args:
        network: the supernet, in evaluation mode.
        metric: the task's primary metric.
    """

    def __init__(self, network: nn.Module, metric: Metric) -> None:
        self.network: Any = network
        self.metric = metric

    def check(self, dataset: Any) -> None:
        """Refuse validation images that cannot distinguish schemes.

        Raises:
            ValueError: if there are too few images for a standard error.
        """
        if len(dataset) < 2:
            raise ValueError(f"a search compares schemes on at least 2 validation images, got {len(dataset)}")

    def fingerprint(self, dataset: Any, settings: Mapping[str, Any]) -> str:
        """Identify the images and annotations of a data set, and how they are read.

        Args:
            dataset: the data set.
            settings: its config.
        """
        return str(dataset.fingerprint)

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Move a batch of the validation loader to the network's device and normalize its images."""
        return dict(self.network.data_preprocessor(batch, False))

    @property
    def first(self) -> nn.Module | None:
        """The module that :meth:`early` applies, which passes its input through while predictions are read."""
        return None

    def early(self, maps: tuple[Tensor, ...]) -> Any:
        """Reduce the backbone's feature maps as soon as they are computed: the output of the module that reads them,
        if that is smaller. By default, the maps themselves.

        Returns:
            What the backbone shall return while predictions are read.
        """
        return maps

    @abstractmethod
    def rows(self, data: Mapping[str, Any]) -> Tensor:
        """Predict a prepared batch by the network's own forward pass; numbers per image, ``(n,)`` or ``(n, k)``."""

    def calibrate(self, batch: Mapping[str, Any]) -> None:
        """Run a training batch through all parts of the network whose batch norms matter for predictions."""
        self.network(**self.network.data_preprocessor(batch, True), mode="tensor")

    @abstractmethod
    def value(self, rows: Rows) -> float:
        """Return the metric over all images, exactly as a validation computes it."""

    @abstractmethod
    def error(self, rows: Rows) -> float:
        """Return the standard error of the metric, over images."""

    def error_of(self, score: float, images: int) -> float:
        """Standard error of a score over ``images`` images, if the score alone determines it; otherwise 0."""
        return 0.0

    @abstractmethod
    def difference(self, first: Rows, second: Rows) -> Difference:
        """Compare two schemes on the same images."""

    def score(self, rows: Rows) -> Score:
        """Return the metric and its standard error."""
        return Score(self.value(rows), self.error(rows))


class MeanScorer(Scorer):
    """Scores by a metric that is a mean over images."""

    @abstractmethod
    def per_image(self, rows: Rows) -> NDArray[np.float64]:
        """Return the value of each image ``(n,)``, in the metric's unit."""

    def value(self, rows: Rows) -> float:
        return float(self.per_image(rows).mean())

    def error(self, rows: Rows) -> float:
        return _error_of_mean(self.per_image(rows))

    def difference(self, first: Rows, second: Rows) -> Difference:
        gaps = self.per_image(first) - self.per_image(second)
        return Difference(self.value(first) - self.value(second), _error_of_mean(gaps))


def _error_of_mean(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


class ClassifierScorer(MeanScorer):
    """Scores classifiers by top-1 accuracy; a row is whether an image is classified correctly."""

    network: ImageClassifier

    def check(self, dataset: Any) -> None:
        """Refuse validation images of a single class, which cannot distinguish schemes."""
        labels = getattr(dataset, "labels", None)  # custom data sets may not have them
        found = set(map(int, labels)) if labels is not None else set()
        if len(found) == 1:
            raise ValueError(
                f"all {len(dataset)} validation images are of class {found.pop()} and cannot distinguish schemes; "
                "choose others in val_dataloader.dataset"
            )

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        data = super().prepare(batch)
        return {**data, "inputs": self.network.prepare(data["inputs"])}

    def rows(self, data: Mapping[str, Any]) -> Tensor:
        logits = self.network(data["inputs"])
        assert isinstance(logits, Tensor)
        return label_ranks(logits, data["labels"]) == 0  # stays on the device, without synchronization

    def calibrate(self, batch: Mapping[str, Any]) -> None:
        self.network.forward_features(self.network.data_preprocessor(batch)["inputs"])  # the head has no norms

    def per_image(self, rows: Rows) -> NDArray[np.float64]:
        return 100 * rows.astype(np.float64)

    def value(self, rows: Rows) -> float:
        return 100 * int(rows.sum()) / len(rows)

    def error(self, rows: Rows) -> float:
        return self.error_of(self.value(rows), len(rows))

    def error_of(self, score: float, images: int) -> float:
        """Return the binomial standard error of a single accuracy. Schemes are compared on the same images, so
        differences between them are more certain than these errors suggest."""
        share = score / 100
        return 100 * math.sqrt(share * (1 - share) / images)


class SumScorer(Scorer):
    """Scores by a metric that is computed from sums over images, with errors by a bootstrap over images."""

    #: Resamples of the bootstrap.
    RESAMPLES = 1000

    @abstractmethod
    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metric ``(...)`` of sums of rows ``(..., k)``."""

    def value(self, rows: Rows) -> float:
        return float(self.of_sums(rows.astype(np.float64).sum(0)))

    def error(self, rows: Rows) -> float:
        return float(self._resampled(rows).std(ddof=1))

    def difference(self, first: Rows, second: Rows) -> Difference:
        gaps = self._resampled(first) - self._resampled(second)
        low, high = np.quantile(gaps, (0.025, 0.975))
        value = self.value(first) - self.value(second)
        return Difference(value, float(gaps.std(ddof=1)), (float(low), float(high)))

    def _resampled(self, rows: Rows) -> NDArray[np.float64]:
        """Return the metric of each resample ``(R,)``; equal resamples for equal numbers of images."""
        n = len(rows)
        counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), self.RESAMPLES)  # (R, n)
        return self.of_sums(counts.astype(np.float64) @ rows.astype(np.float64))


def scorer_of(network: nn.Module) -> Scorer:
    """Build the scorer that the task of a network registers.

    Raises:
        ValueError: if there is none.
    """
    known = (task_of_network(kind.__name__) for kind in type(network).__mro__)
    task = next((task for task in known if task is not None and task.scorer), None)
    if task is None:
        can = " and ".join(f"{each.noun}s" for each in known_tasks() if each.scorer)
        raise ValueError(f"a search scores {can}; {type(network).__name__} is none of these")
    scorer: type[Scorer] = pkgutil.resolve_name(task.scorer)
    return scorer(network, task.metrics[0])

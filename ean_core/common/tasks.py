"""Registry of tasks: names of their data sets, metrics and networks in configs, records and OpenMMLab.

The core registers classification only. Other packages declare their tasks in the entry point group :data:`GROUP`,
which is read at the first look-up, so that names resolve in every process. The module behind an entry point should
import nothing heavy, neither networks nor metrics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .errors import unknown_name

#: Entry point group; each entry point is one :class:`Task`.
GROUP = "ean.tasks"
#: Names of metrics of other libraries for which lower is better.
_ERROR = re.compile(r"mae|mse|nae|loss|err", re.IGNORECASE)


@dataclass(frozen=True)
class Metric:
    """A metric of a task.

    Args:
        name: name in records and logs, e.g. ``'accuracy/top1'``.
        title: name in OpenMMLab's metafiles, e.g. ``'Top 1 Accuracy'``.
        unit: unit of its values; empty for a plain number.
        less_is_better: whether lower values are better.
        short: name in sentences and in the ledgers of searches; the title if empty.

    Examples:
        >>> Metric("count/MAE", "MAE", "people", less_is_better=True).text(9.3)
        'MAE 9.30 people'
    """

    name: str
    title: str
    unit: str = ""
    less_is_better: bool = False
    short: str = ""

    @property
    def label(self) -> str:
        """Name in sentences and in the ledgers of searches."""
        return self.short or self.title

    @property
    def axis(self) -> str:
        """Name with the unit, for axes and columns."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def measured(self, value: float, error: float | None = None) -> str:
        """A value with its unit, and its standard error if it is given."""
        return f"{value:.2f}{'' if error is None else f' ± {error:.2f}'} {self.unit}".rstrip()

    def text(self, value: float, error: float | None = None) -> str:
        """Name and value with its unit, and its standard error if it is given."""
        return f"{self.label} {self.measured(value, error)}"

    def merit(self, value: float) -> float:
        """The value with the sign that makes more the better."""
        return -value if self.less_is_better else value

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Metric:
        """The metric that a record or the key of a ledger names; top-1 accuracy where it names none, as those written
        before other metrics were searched for.

        Raises:
            ValueError: if its entry is not a metric.
        """
        if "metric" not in record:
            return ACCURACY
        entry = record["metric"]
        try:
            found = cls(**entry)
        except TypeError as error:  # not a mapping, or other fields
            raise ValueError(f"{entry!r} is not a metric: {error}") from error
        wrong = [name for name, value in asdict(found).items() if type(value) is not type(getattr(ACCURACY, name))]
        if wrong:
            raise ValueError(f"{entry!r} is not a metric: {', '.join(wrong)} of another type")
        return found


#: Top-1 accuracy of classifiers, the metric where none is named.
ACCURACY = Metric("accuracy/top1", "Top 1 Accuracy", "%", short="accuracy")


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Args:
        key: suffix of config and model names, e.g. ``'cifar100'``.
        title: its usual name.
        known_by: config entries that identify this data set; for a path, the name of its last folder.
    """

    key: str
    title: str
    known_by: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Task:
    """A task.

    Args:
        name: name in OpenMMLab.
        noun: word for one of its networks, e.g. ``'classifier'``.
        networks: registered names of its networks, this package's own first.
        metrics: its metrics, the primary one first.
        datasets: its data sets, in the order in which reports list them.
        explainer: ``'module:Class'`` that explains its networks in ``ean explain``; empty if there is none.
        exporter: ``'module:Class'``, a :class:`~ean_core.inference.export.FromPixels` of its networks for ``ean
            export``; empty if there is none.
        scorer: ``'module:Class'`` that scores its networks in ``ean search``; empty if there is none.
        per_image: ``'module:function'`` that reads its primary metric of each image from the folder of a test, as pairs
            of the image's name and the value; empty if no test keeps it.
        predict: command that applies this package's own networks to images, such as ``'crowd predict'``; empty if there
            is none.
    """

    name: str
    noun: str
    networks: tuple[str, ...]
    metrics: tuple[Metric, ...]
    datasets: tuple[Dataset, ...]
    explainer: str = ""
    exporter: str = ""
    scorer: str = ""
    per_image: str = ""
    predict: str = ""


#: The task that the core registers.
CLASSIFICATION = Task(
    "Image Classification",
    noun="classifier",
    networks=("ImageClassifier",),
    metrics=(ACCURACY, Metric("accuracy/top5", "Top 5 Accuracy", "%", short="top-5 accuracy")),
    datasets=(
        Dataset("cifar100", "CIFAR-100", {"type": "CIFAR100"}),
        Dataset("imagenet", "ImageNet-1k"),
        Dataset("digits", "scikit-learn digits", {"type": "Digits"}),
    ),
    exporter="ean_core.inference.export:FromPixels",
    scorer="ean_core.search.scorer:ClassifierScorer",
)
_TASKS: dict[str, Task] = {CLASSIFICATION.name: CLASSIFICATION}


def register_task(task: Task) -> None:
    """Register a task, replacing any of the same name.

    Raises:
        ValueError: if another task already has one of its data sets.
    """
    for other in _TASKS.values():
        taken = {each.key for each in other.datasets} & {each.key for each in task.datasets}
        if other.name != task.name and taken:
            raise ValueError(f"data sets {', '.join(sorted(taken))} of {task.name} already belong to {other.name}")
    _TASKS[task.name] = task


def known_tasks() -> tuple[Task, ...]:
    """Return all tasks, classification first."""
    _load_entry_points()
    return tuple(_TASKS.values())


def known_datasets() -> dict[str, Dataset]:
    """Return all data sets by key, in the order in which reports list them."""
    return {dataset.key: dataset for task in known_tasks() for dataset in task.datasets}


def find_dataset(key: str) -> Dataset:
    """Return a data set by its key.

    Raises:
        ValueError: if there is none of that key; the message lists the closest ones.

    Examples:
        >>> find_dataset('cifar100').title
        'CIFAR-100'
    """
    known = known_datasets()
    if key not in known:
        raise unknown_name("data set", key, known)
    return known[key]


def task_of_dataset(key: str) -> Task:
    """Return the task that a data set belongs to; errors as in :func:`find_dataset`."""
    dataset = find_dataset(key)
    return next(task for task in known_tasks() if dataset in task.datasets)


def dataset_of(settings: Mapping[str, Any]) -> Dataset | None:
    """Return the data set that a config's dataset settings describe; None if it is unknown."""

    def agrees(name: str, value: str) -> bool:
        return value in (settings.get(name), Path(str(settings.get(name))).name)

    every = (each for each in known_datasets().values() if each.known_by)
    return next((each for each in every if all(agrees(*entry) for entry in each.known_by.items())), None)


def task_of_network(network: str | None) -> Task | None:
    """Return the task of a network by its registered name; None for networks of other packages."""
    return next((task for task in known_tasks() if network in task.networks), None)


def find_metric(name: str) -> Metric:
    """Return a metric by its name in records or in OpenMMLab; for an unknown name, guess its direction from it.

    Examples:
        >>> find_metric('accuracy/top1')
        Metric(name='accuracy/top1', title='Top 1 Accuracy', unit='%', less_is_better=False, short='accuracy')
        >>> find_metric('val_error').less_is_better
        True
    """
    every = (metric for task in known_tasks() for metric in task.metrics)
    known = next((metric for metric in every if name in (metric.name, metric.title)), None)
    return known or Metric(name, name, "%" * name.startswith("accuracy"), bool(_ERROR.search(name)))


def headline(metrics: Mapping[str, float]) -> tuple[str, float]:
    """Return the main metric of a task, by its name in records or in OpenMMLab, and its value; the first metric for
    tasks that are not registered.

    Examples:
        >>> headline({'accuracy/top5': 91.2, 'accuracy/top1': 70.5})
        ('accuracy/top1', 70.5)
    """
    known = (name for task in known_tasks() for name in (task.metrics[0].name, task.metrics[0].title))
    key = next((name for name in known if name in metrics), next(iter(metrics)))
    return key, metrics[key]


@cache
def _load_entry_points() -> None:
    # An editable and a regular installation side by side declare the same task twice.
    found = {point.value: point for point in entry_points(group=GROUP)}
    for point in sorted(found.values(), key=lambda point: point.name):
        try:
            register_task(point.load())
        except Exception as error:
            where = f"entry point {point.name!r} of {GROUP} ({point.value})"
            raise ImportError(f"{where} cannot be loaded: {error}") from error

"""Registry of tasks: the names of their data sets, metrics and networks in configs, records and OpenMMLab.

The core registers classification only. Every other package declares its tasks in the entry point group :data:`GROUP`,
which is read at the first look-up, so that names resolve in every process. What such an entry point names should import
nothing heavy: networks and metrics stay where they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .errors import unknown_name

#: Entry points of one :class:`Task` each.
GROUP = "ean.tasks"
#: Metrics of other libraries for which less is better, by what they are called.
_ERROR = re.compile(r"mae|mse|nae|loss|err", re.IGNORECASE)
_TASKS: dict[str, Task] = {}


@dataclass(frozen=True)
class Metric:
    """A metric of a task.

    Args:
        name: in records and logs, e.g. ``'accuracy/top1'``.
        title: as OpenMMLab's metafiles call it, e.g. ``'Top 1 Accuracy'``.
        unit: of its values; empty for a plain number.
        less_is_better: its direction.
    """

    name: str
    title: str
    unit: str = ""
    less_is_better: bool = False


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Args:
        key: at the end of names of configs and models, e.g. ``'cifar100'``.
        title: its usual name.
        known_by: entries by which a config's data set is recognised as this one; of a path, its last folder.
    """

    key: str
    title: str
    known_by: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Task:
    """A task.

    Args:
        name: as OpenMMLab calls it.
        noun: one of its networks, e.g. ``'classifier'``.
        networks: registered names of its networks, this package's own first.
        metrics: the one that networks are judged by first.
        datasets: in the order in which reports list them.
        explainer: ``'module:Class'`` of what explains its networks to ``ean explain``; empty if nothing does.
    """

    name: str
    noun: str
    networks: tuple[str, ...]
    metrics: tuple[Metric, ...]
    datasets: tuple[Dataset, ...]
    explainer: str = ""


def register_task(task: Task) -> None:
    """Make a task known; one of the same name is replaced.

    Raises:
        ValueError: if another task has one of its data sets.
    """
    for other in _TASKS.values():
        taken = {each.key for each in other.datasets} & {each.key for each in task.datasets}
        if other.name != task.name and taken:
            raise ValueError(f"data sets {', '.join(sorted(taken))} of {task.name} belong to {other.name} already")
    _TASKS[task.name] = task


def known_tasks() -> tuple[Task, ...]:
    """All tasks, classification first."""
    _load_entry_points()
    return tuple(_TASKS.values())


def known_datasets() -> dict[str, Dataset]:
    """All data sets by key, in the order in which reports list them."""
    return {dataset.key: dataset for task in known_tasks() for dataset in task.datasets}


def find_dataset(key: str) -> Dataset:
    """A data set by its key.

    Raises:
        ValueError: if there is none; the nearest are named.

    Examples:
        >>> find_dataset('cifar100').title
        'CIFAR-100'
    """
    known = known_datasets()
    if key not in known:
        raise unknown_name("data set", key, known)
    return known[key]


def task_of_dataset(key: str) -> Task:
    """The task that a data set belongs to; errors as of :func:`find_dataset`."""
    dataset = find_dataset(key)
    return next(task for task in known_tasks() if dataset in task.datasets)


def dataset_of(settings: Mapping[str, Any]) -> Dataset | None:
    """The data set that a config's settings of one describe; None if it is none of the known ones."""

    def agrees(name: str, value: str) -> bool:
        return value in (settings.get(name), Path(str(settings.get(name))).name)

    every = (each for each in known_datasets().values() if each.known_by)
    return next((each for each in every if all(agrees(*entry) for entry in each.known_by.items())), None)


def task_of_network(network: str | None) -> Task | None:
    """The task of a network by its registered name; None for networks of other packages."""
    return next((task for task in known_tasks() if network in task.networks), None)


def find_metric(name: str) -> Metric:
    """A metric by its name in records or in OpenMMLab; one of another library is guessed from what it is called.

    Examples:
        >>> find_metric('accuracy/top1')
        Metric(name='accuracy/top1', title='Top 1 Accuracy', unit='%', less_is_better=False)
        >>> find_metric('val_error').less_is_better
        True
    """
    every = (metric for task in known_tasks() for metric in task.metrics)
    known = next((metric for metric in every if name in (metric.name, metric.title)), None)
    return known or Metric(name, name, "%" * name.startswith("accuracy"), bool(_ERROR.search(name)))


@cache
def _load_entry_points() -> None:
    # An editable and a usual installation side by side declare the same task twice.
    found = {point.value: point for point in entry_points(group=GROUP)}
    for point in sorted(found.values(), key=lambda point: point.name):
        register_task(point.load())

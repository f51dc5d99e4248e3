"""Networks of tasks whose tests keep a value of each image, compared image by image."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ean_core.common.intervals import mean_interval, told_apart
from ean_core.common.tasks import Metric, Task, known_tasks
from ean_core.show.table import Cells

from .claim import PAIRS
from .evidence import points_text
from .recipes import Recipes
from .records import LeaveOut
from .results import Result
from .rows import measured_text

#: Largest difference between the metric of a test and the mean of its table, which is rounded.
ROUNDING = 1e-3
#: The metric of each image by its name.
Values = Mapping[str, float]


def read_values(
    results: Iterable[Result], tables: Mapping[Path, Mapping[str, Any]], leave_out: LeaveOut
) -> dict[Path, Values]:
    """Read the metric of each image of all tests that keep it, by the folder of the run.

    Args:
        results: networks.
        tables: rows of the paper's tables; the folder of one has the values of a test of the same checkpoint, where the
            folder of the test itself has not.
        leave_out: called for folders whose values cannot be read.
    """
    found: dict[Path, Values] = {}
    for task in (each for each in known_tasks() if each.per_image):
        read = pkgutil.resolve_name(task.per_image)
        for run in (run for each in results for run in each.runs if task.metrics[0].name in run.test["metrics"]):
            sha256 = run.test["checkpoint"].get("sha256")
            others = [path.parent for path, row in tables.items() if sha256 and _tested(row) == sha256]
            for folder in (run.folder, *others):
                try:
                    values: Values = dict(read(folder))
                except (ValueError, OSError, KeyError, TypeError) as error:
                    leave_out(folder, f"the values of its images cannot be read: {error}")
                    continue
                if _gives(values, run.test, task):
                    found[run.folder] = values
                    break
    return found


def _tested(row: Mapping[str, Any]) -> str | None:
    """Hash of the checkpoint that a row of a table is of; None in rows of earlier versions."""
    tested = row.get("test")
    return tested.get("sha256") if isinstance(tested, Mapping) else None


def _gives(values: Values, test: Mapping[str, Any], task: Task) -> bool:
    """Whether these are the values of a test: as many, and with its metric as their mean."""
    metric = test["metrics"][task.metrics[0].name]
    return len(values) == test["images"] and abs(np.mean([*values.values()]) - metric) < ROUNDING


def pair_rows(results: Sequence[Result], values: Mapping[Path, Values], task: Task, recipes: Recipes) -> list[Cells]:
    """Compare networks that were measured on the same images, one row per pair of :data:`~.claim.PAIRS`.

    Args:
        results: networks; those of other tasks are ignored.
        values: from :func:`read_values`.
        task: the task.
        recipes: names of the networks' recipes, which may differ.
    """
    metric = task.metrics[0]
    own = [each for each in results if metric.name in each.runs[0].test["metrics"]]
    return [
        cells
        for one, other in PAIRS
        for first, second in product(own, own)
        if (first.connection, second.connection) == (one, other)
        and (first.data, first.network) == (second.data, second.network)
        and second.attention in ("", first.attention)
        for cells in _row(first, second, values, metric, recipes)
    ]


def _row(
    first: Result, second: Result, values: Mapping[Path, Values], metric: Metric, recipes: Recipes
) -> Iterator[Cells]:
    """Yield the row of a pair, if there are values of the same images."""
    ours, theirs = (_mean_values(each, values) for each in (first, second))
    if not ours or ours.keys() != theirs.keys():
        return
    difference = mean_interval([ours[name] - theirs[name] for name in ours])
    letters = dict.fromkeys(recipes.letter(each) for each in (first, second))
    same = recipes.text(first) == recipes.text(second)
    yield {
        "network": f"{first.network} {first.attention}",
        "compared": f"{first.connection} against {second.connection}",
        "data": first.data,
        f"difference ({metric.unit})": points_text(difference),
        f"{metric.label} of the first": f"{np.mean([*ours.values()]):.2f}",
        "of the second": f"{np.mean([*theirs.values()]):.2f}",
        "verdict": told_apart(difference, len(ours)) if same else "recipes differ",
        "trainings": f"{len(first.runs)} and {len(second.runs)}",
        "measured on": measured_text(first),
        "recipe": " and ".join(filter(None, letters)),
    }


def _mean_values(result: Result, values: Mapping[Path, Values]) -> Values:
    """The metric of each image, mean over seeds; empty if a seed lacks them or has other images."""
    seeds = [values.get(run.folder, {}) for run in result.runs]
    if any(each.keys() != seeds[0].keys() for each in seeds):
        return {}
    return {name: float(np.mean([each[name] for each in seeds])) for name in seeds[0]}

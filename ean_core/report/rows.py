"""Rows of the paper's tables, ours and the paper's, and texts about how ours were trained and timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ean_core.common.text import number_of
from ean_core.show.table import Cells, size_text, spread_text

from .paper import PAPER, PaperRow
from .results import BORROWED_TEXT, FORMS, METRICS, Result, Timing


def table_rows(results: Sequence[Result], table: int, *, everything: bool = False) -> list[Result | PaperRow]:
    """Return the rows of one of the paper's tables; for each data set ours, then the paper's.

    Args:
        results: networks; those without the table's metrics are ignored.
        table: 1, 3 or 5.
        everything: include the paper's rows for data sets on which nothing was measured here.
    """
    metrics = METRICS[table]
    ours = [each for each in results if metrics.keys() <= each.runs[0].test["metrics"].keys()]
    theirs = [row for row in PAPER if row.table == table]
    own = dict.fromkeys(map(_plain_data, ours))
    rows: list[Result | PaperRow] = []
    for data in {**own, **dict.fromkeys(row.data for row in theirs if everything)}:
        rows += [each for each in ours if _plain_data(each) == data]
        rows += [row for row in theirs if row.data == data]
    return rows


def _plain_data(result: Result) -> str:
    """The paper's name of the data set."""
    return result.data.removesuffix(" with SBD")


def result_cells(
    row: Result | PaperRow, table: int, recipe: str = "", label: Callable[[Path], str] = Path.as_posix
) -> Cells:
    """Format a network, ours or the paper's, as a row of Table 1, 3 or 5.

    Args:
        row: the network.
        table: 1, 3 or 5.
        recipe: letter of its recipe, where others were trained differently.
        label: names the records that its times are from.
    """
    names = {
        "network": " ".join(filter(None, (row.network, row.attention))),
        "connection": row.connection,
        "data": row.data,
    }
    if isinstance(row, PaperRow):
        digits = "g" if table == 3 else ".2f"
        return {
            "source": f"paper, Table {row.table}",
            **names,
            **{title: f"{row.metrics[name]:{digits}}" for name, title in METRICS[table].items()},
            "increment (%)": f"{row.increment:+.2f}" if row.increment is not None else "",
            "parameters": f"{row.parameters:.3f} M" if row.parameters else "",
        }
    training = row.runs[0].training
    return {
        "source": "here",
        **names,
        **{title: spread_text(row.values(name), 2) for name, title in METRICS[table].items()},
        "epochs": row.epochs,
        "recipe": recipe,
        "seeds": str(len(row.runs)),
        "increment (%)": row.increment("eager"),
        "deployed (%)": row.increment("deployed"),
        "timed in": timed_text(row.timings, label),
        "parameters": f"{row.parameters:,}",
        "connections": f"{row.scheme.connections} `{row.scheme}`",
        "iterations": f"{training['iterations']:,}" if "iterations" in training else "",
        "training images": f"{training['images']:,}" if "images" in training else "",  # older records lack them
        "measured on": measured_text(row),
    }


def measured_text(result: Result) -> str:
    """Images that a network was measured on, e.g. ``40 validation images``."""
    split = result.runs[0].test.get("data", {}).get("split", "test")
    return f"{result.images:,} {'validation' if split == 'val' else split} images"


def timed_text(timings: Mapping[str, Timing], label: Callable[[Path], str]) -> str:
    """Where a network was timed, see :meth:`Timing.place`; with the form if forms were timed in different places."""
    places = {form: timings[form].place(label) for form in FORMS if form in timings}
    if len({*places.values()}) < 2:
        return next(iter(places.values()), "not timed")
    return ", ".join(f"{form}: {place}" for form, place in places.items())


def schedule_text(training: Mapping[str, Any]) -> str:
    """Training length, e.g. ``24 epochs on 50,000 images`` or ``20,000 iterations on 1,464 images``."""
    images = f" on {training['images']:,} images" if "images" in training else ""  # older records lack them
    if "iterations" in training:
        return f"{number_of(training['iterations'], 'iteration')}{images}"
    return f"{number_of(training['epochs'], 'epoch')}{images}"


def machine_text(record: Mapping[str, Any]) -> str:
    """Machine that a record was made on: the GPU if one was used, otherwise the processor."""
    where = record["environment"]
    if str(record.get("device", "cpu")) != "cpu" and where["gpus"]:
        return str(where["gpus"][0])
    return f"{where['cpu']}, {where['threads']} thread{'s' * (where['threads'] != 1)}"


def timing_text(results: Sequence[Result]) -> str:
    """Conditions under which increments were measured; empty if none were."""
    conditions: dict[str, list[str]] = {}
    for each in results:
        for timing in each.timings.values():
            record = timing.record
            where = (
                f"batch {record['batch']} at {size_text(record['size'])} pixels, {record['dtype']}, "
                f"{machine_text(record)}, {record['rounds']} rounds"
            )
            names = conditions.setdefault(where, [])
            names += [each.attention] * bool(each.attention and each.attention not in names)
    if not conditions:
        return ""
    borrowed = any(not timing.own for each in results for timing in each.timings.values())
    measured = "; ".join(f"{', '.join(names)}: {where}" for where, names in conditions.items() if names)
    return (
        "Increments (Eqn 9) are medians over rounds in which all networks with the same attention are timed side by "
        "side, relative to the vanilla network in the same form, with 95 % intervals within that process. "
        f"{f'{measured}. ' if measured else ''}The paper: batch 50 on a V100.{f' {BORROWED_TEXT}' if borrowed else ''}"
    )

"""A part of a report, and names that several parts use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ean_core.common.config import parse_name
from ean_core.common.record import significant
from ean_core.common.tasks import find_dataset


@dataclass(frozen=True)
class Section:
    """A part of a report: a table, a figure with its data, or text only.

    Args:
        name: stem of its files, and its anchor on the page.
        title: heading above it.
        note: text below it; paragraphs are separated by an empty line.
        rows: rows of the table, or data of the figure in six significant digits.
        draw: writes the figure to a path, in the format of its suffix; None for tables and text.
    """

    name: str
    title: str
    note: str
    rows: Sequence[Mapping[str, Any]] = ()
    draw: Callable[[Path], object] | None = None


def rounded(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Round a figure's data for its CSV file; None becomes empty."""
    return [{name: "" if value is None else significant(value) for name, value in row.items()} for row in rows]


def network_cells(config: str | None) -> dict[str, str]:
    """Data set and network of a search's config."""
    parts = parse_name(config or "")
    if parts is None:
        return {"network": config or "", "data": ""}
    return {"network": f"ResNet-{parts.depth} {parts.attention.upper()}", "data": find_dataset(parts.dataset).title}


def of_network(record: Mapping[str, Any]) -> str:
    """Network and data set of a search or gates record, as the end of a title."""
    names = network_cells(record["config"])
    return f": {names['network']}, {names['data']}".rstrip(", ")

"""Rows of the paper's tables of transfer: what a network achieves on a task, and what its attention costs there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from ean_core.backbone import find_backbone
from ean_core.common.record import csv_text, write_record, write_text
from ean_core.inference.comparison import Variant, connection
from ean_core.show.table import in_percent, markdown_table


def columns(*metrics: str) -> tuple[str, ...]:
    """Titles of a table with these columns of metrics."""
    costs = ("increment (%)", "deployed (%)", "parameters", "scheme")
    return ("data", "network", "connection", *metrics, *costs)


@dataclass(frozen=True)
class TaskRow:
    """One network on a task; each task says in its own class how metrics are shown.

    Args:
        data: data set and split, e.g. ``'ShanghaiTech B, 316 test images'``.
        network: e.g. ``'ResNet-50 SE'``.
        connection: ``vanilla``, ``Org-full``, ``Share-full`` or ``EAN``.
        scheme: its connections.
        metrics: by name, as of its test record.
        parameters: number of them.
        increments: relative inference time increment of the whole network (Eqn 9) and its 95 % interval, by form.
    """

    titles: ClassVar[tuple[str, ...]] = columns()
    words: ClassVar[tuple[str, ...]] = ("data", "network", "connection", "scheme")

    data: str
    network: str
    connection: str
    scheme: str
    metrics: Mapping[str, float]
    parameters: int
    increments: Mapping[str, tuple[float, tuple[float, float] | None]]

    @classmethod
    def describe(cls, own: Variant) -> dict[str, str]:
        """Network, connection and scheme of a row, from the network."""
        backbone = find_backbone(own.network)
        attention = [own.attention] if backbone.scheme.connections else []
        return {
            "network": " ".join([f"ResNet-{backbone.depth}", *attention]),
            "connection": connection(own.network),
            "scheme": str(backbone.scheme),
        }

    def metric_cells(self) -> Iterable[tuple[str, str]]:
        """Titles and texts of its metrics."""
        return ()

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        cells = {
            "data": self.data,
            "network": self.network,
            "connection": self.connection,
            **dict(self.metric_cells()),
            "parameters": f"{self.parameters:,}",
            "scheme": self.scheme,
        }
        for form, title in (("eager", "increment (%)"), ("deployed", "deployed (%)")):
            if form in self.increments:
                cells[title] = in_percent(*self.increments[form])
        return cells

    def write(self, folder: Path, table: int, **facts: Any) -> None:
        """Write the row as a record, as Markdown and as CSV, ``table3.json`` and so on.

        Args:
            folder: to write to.
            table: its number in the paper.
            facts: more for the record.
        """
        path = folder / f"table{table}.json"
        write_record(path, kind=f"table {table}", **asdict(self), **facts)
        write_text(path.with_suffix(".md"), markdown_table([self]) + "\n")
        write_text(path.with_suffix(".csv"), csv_text(self.cells(), [self.cells().values()]))

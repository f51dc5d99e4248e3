"""Rows of the paper's transfer tables: a network's metrics on a task, and the time cost of its attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ean_core.backbone import find_backbone
from ean_core.common.record import csv_text, write_record, write_text
from ean_core.inference.comparison import Variant, connection
from ean_core.show.table import Cells, columns, in_percent, markdown_table


@dataclass(frozen=True)
class TaskRow:
    """One network on a task.

    Args:
        data: data set and split, e.g. ``'ShanghaiTech B, 316 test images'``.
        network: e.g. ``'ResNet-50 SE'``.
        connection: ``vanilla``, ``Org-full``, ``Share-full`` or ``EAN``.
        scheme: its connections.
        metrics: values by name, from its test record.
        parameters: number of parameters.
        increments: relative inference time increment of the whole network (Eqn 9) and its 95 % interval, by form.
    """

    data: str
    network: str
    connection: str
    scheme: str
    metrics: Mapping[str, float]
    parameters: int
    increments: Mapping[str, tuple[float, tuple[float, float] | None]]

    @classmethod
    def of(cls, own: Variant, **measured: Any) -> TaskRow:
        """Build a row; network, connection and scheme come from the network, all other fields from ``measured``."""
        backbone = find_backbone(own.network)
        attention = [own.attention] if backbone.scheme.gates else []
        network = " ".join([f"ResNet-{backbone.depth}", *attention])
        return cls(network=network, connection=connection(own.network), scheme=str(backbone.scheme), **measured)

    def cells(self, metrics: Cells) -> Cells:
        """Column titles and texts; ``metrics`` gives those of its metrics."""
        increments = {form: in_percent(*increment) for form, increment in self.increments.items()}
        return {
            "data": self.data,
            "network": self.network,
            "connection": self.connection,
            **metrics,
            "increment (%)": increments.get("eager", ""),
            "deployed (%)": increments.get("deployed", ""),
            "parameters": f"{self.parameters:,}",
            "scheme": self.scheme,
        }


def write_row(folder: Path, table: int, row: TaskRow, cells: Cells, **facts: Any) -> None:
    """Write a row as record, Markdown and CSV: ``table3.json``, ``table3.md``, ``table3.csv``.

    Args:
        folder: output folder.
        table: table number in the paper.
        row: row to store in the record.
        cells: texts of the row for Markdown and CSV.
        facts: additional fields of the record.
    """
    path = folder / f"table{table}.json"
    write_record(path, kind=f"table {table}", **asdict(row), **facts)
    write_text(path.with_suffix(".md"), markdown_table([cells]) + "\n")
    write_text(path.with_suffix(".csv"), csv_text(*columns([cells])))

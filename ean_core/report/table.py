"""Tables of networks, on the terminal and as Markdown, in the form of the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ean_core.scheme import ConnectionScheme


@dataclass(frozen=True)
class NetworkRow:
    """One network of a table; what is None is left out.

    Args:
        name: e.g. ``EAN``.
        scheme: its connections.
        parameters: number of them.
        accuracy: in percent.
        seconds: median time of a forward pass.
        increment: relative inference time increment (Eqn 9); 0.1 is ten percent.
        increment_quartiles: between which the middle half of its rounds lies.
    """

    name: str
    scheme: ConnectionScheme
    parameters: int
    accuracy: float | None = None
    seconds: float | None = None
    increment: float | None = None
    increment_quartiles: tuple[float, float] | None = None

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        cells = {"network": self.name, "parameters": f"{self.parameters:,}"}
        if self.accuracy is not None:
            cells["accuracy (%)"] = f"{self.accuracy:.2f}"
        if self.seconds is not None:
            cells["latency (ms)"] = f"{1e3 * self.seconds:.2f}"
        if self.increment is not None:
            text = f"{100 * self.increment:+.1f}"
            if self.increment_quartiles:
                text += " ({:+.1f} to {:+.1f})".format(*(100 * value for value in self.increment_quartiles))
            cells["increment (%)"] = text
        cells["scheme"] = str(self.scheme)
        return cells


def markdown_table(rows: Sequence[NetworkRow]) -> str:
    """The rows as a Markdown table.

    Examples:
        >>> print(markdown_table([NetworkRow('EAN', ConnectionScheme.parse('10-01'), 1234, accuracy=70.5)]))
        | network | parameters | accuracy (%) | scheme |
        |---|---|---|---|
        | EAN | 1,234 | 70.50 | 10-01 |
    """
    table = [row.cells() for row in rows]
    titles = list(table[0])
    lines = [titles, ["---"] * len(titles), *([row.get(title, "") for title in titles] for row in table)]
    return "\n".join(
        "|---" * len(titles) + "|" if line[0] == "---" else "| " + " | ".join(line) + " |" for line in lines
    )


def print_table(rows: Sequence[NetworkRow], title: str) -> None:
    """The rows on the terminal, as wide as they need."""
    cells = [row.cells() for row in rows]
    table = Table(title=title, title_justify="left")
    for column in cells[0]:
        table.add_column(column, justify="left" if column in ("network", "scheme") else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row.values())
    console = Console()
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    Console(width=max(console.width, needed)).print(table)

"""Tables on the terminal and as Markdown, and rows of networks as in the paper's Table 1."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ean_core.common.tasks import find_metric
from ean_core.common.text import markdown_cell, visible
from ean_core.scheme import ConnectionScheme

#: A row of a table: texts by column title; columns that are empty in all rows are omitted.
Cells = Mapping[str, str]
#: A number as written in tables: with sign, thousands separators, interval or unit.
_NUMBER = re.compile(r"[+-]?\d[\d,.]*( ?(%|M|MB|ms))?( [(±].*)?")


@dataclass(frozen=True)
class NetworkRow:
    """One network of a table; fields that are None are omitted.

    Args:
        name: e.g. ``EAN``.
        scheme: its connections.
        parameters: number of parameters.
        accuracy: in percent.
        seconds: median time of a forward pass.
        increment: relative inference time increment (Eqn 9) as a fraction; 0.1 is ten percent.
        increment_interval: its 95 % interval.
        memory: peak memory in bytes of a forward pass of the timed batch.
        macs: multiply-accumulate operations per image.
    """

    name: str
    scheme: ConnectionScheme
    parameters: int
    accuracy: float | None = None
    seconds: float | None = None
    increment: float | None = None
    increment_interval: tuple[float, float] | None = None
    memory: int | None = None
    macs: int | None = None

    @classmethod
    def of_record(cls, name: str, record: Mapping[str, Any], accuracy: float | None = None) -> NetworkRow:
        """Build a row from a network's entry in a timing record."""
        return cls(
            name=name,
            scheme=ConnectionScheme.parse(record["scheme"]),
            parameters=record["parameters"],
            accuracy=accuracy,
            seconds=record["median_s"],
            increment=record["increment"],
            increment_interval=record["increment_interval"],
            memory=record.get("peak_memory"),
            macs=record.get("macs"),
        )

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        return {
            "network": self.name,
            "parameters": f"{self.parameters:,}",
            "accuracy (%)": "" if self.accuracy is None else f"{self.accuracy:.2f}",
            "latency (ms)": "" if self.seconds is None else f"{1e3 * self.seconds:.2f}",
            "increment (%)": "" if self.increment is None else in_percent(self.increment, self.increment_interval),
            "memory (MB)": "" if self.memory is None else f"{self.memory / 1e6:.3g}",
            "GMACs": "" if self.macs is None else f"{self.macs / 1e9:.3g}",
            "scheme": str(self.scheme),
        }


def in_percent(increment: float, interval: Sequence[float] | None, digits: int = 1) -> str:
    """Format an increment and its interval in percent.

    Examples:
        >>> in_percent(0.0123, (0.01, 0.02))
        '+1.2 (+1.0 to +2.0)'
        >>> in_percent(0.0123, None)
        '+1.2'
    """
    texts = [f"{100 * value:+.{digits}f}" for value in (increment, *(interval or ()))]
    return texts[0] + (f" ({texts[1]} to {texts[2]})" if interval else "")


def size_text(size: int | Sequence[int]) -> str:
    """Format an image size: one number if height and width are equal.

    Examples:
        >>> size_text(224), size_text((768, 1024))
        ('224', '768 x 1024')
    """
    return str(size) if isinstance(size, int) else " x ".join(map(str, size))


def markdown_table(rows: Sequence[Cells]) -> str:
    """Format the rows as a Markdown table; code in backticks stays code, other markup is escaped.

    Examples:
        >>> row = NetworkRow('EAN', ConnectionScheme.parse('10-01'), 1234, accuracy=70.5)
        >>> print(markdown_table([row.cells()]))
        | network | parameters | accuracy (%) | scheme |
        |---|---|---|---|
        | EAN | 1,234 | 70.50 | 10-01 |
    """
    titles, texts = columns(rows)
    lines = [titles, ["---"] * len(titles), *texts]
    return "\n".join(
        "|---" * len(titles) + "|" if line[0] == "---" else "| " + " | ".join(map(markdown_cell, line)) + " |"
        for line in lines
    )


def print_table(rows: Sequence[Cells], title: str, extra: Sequence[str] = ()) -> None:
    """Print the rows: at full width into files and pipes, and in a form that fits on a terminal.

    Columns of numbers are right-aligned. On a terminal narrower than the table, titles and texts are wrapped; where the
    numbers, the first column and the longest words leave no room for that, each row is a block of lines.

    Args:
        rows: cells by title.
        title: title of the table.
        extra: titles of columns that are left out of a terminal narrower than the table, the last one first, until
            the others fit.
    """
    console = Console(markup=False)
    titles, texts, widths = _visible_columns(rows)
    for name in reversed(extra if sys.stdout.isatty() else ()):
        if sum(widths) + 3 * len(titles) + 1 > console.width:
            rows = [{title: cell for title, cell in row.items() if title != name} for row in rows]
            titles, texts, widths = _visible_columns(rows)
    borders = 3 * len(titles) + 1
    if not sys.stdout.isatty():
        console.width = max(console.width, sum(widths) + borders, cell_len(title))
    elif sum(widths) + borders > console.width:
        widths = _wrapped_widths(titles, texts, console.width - borders, longest=console.width // 2)
    console.print(Text(visible(title), "table.title"))
    if not widths:
        _print_blocks(console, titles, texts)
        return
    table = Table()
    for number, (column, width) in enumerate(zip(titles, widths, strict=True)):
        numbers = are_numbers(row[number] for row in texts)
        table.add_column(Text(column), justify="right" if numbers else "left", width=width, overflow="fold")
    for row in texts:
        table.add_row(*map(Text, row))
    console.print(table)


def _visible_columns(rows: Sequence[Cells]) -> tuple[list[str], list[list[str]], list[int]]:
    """Return titles and texts as they are printed, and the widths of columns in which no line is wrapped."""
    titles, texts = columns(rows)
    titles, texts = [visible(each) for each in titles], [[visible(cell, "\n") for cell in row] for row in texts]
    return titles, texts, _full_widths(titles, texts)


def _full_widths(titles: Sequence[str], texts: Sequence[Sequence[str]]) -> list[int]:
    """Return the widths of columns in which no line is wrapped."""
    by_column = zip(titles, *texts, strict=True)
    return [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in by_column]


def _wrapped_widths(titles: Sequence[str], texts: Sequence[Sequence[str]], room: int, longest: int) -> list[int]:
    """Return the widths of columns that share ``room``; an empty list if they do not fit.

    Numbers and the first column are not wrapped, and words not broken unless they are longer than ``longest``.
    """
    full, least = _full_widths(titles, texts), []
    for number, column in enumerate(zip(titles, *texts, strict=True)):
        whole = column[1:] if number == 0 or are_numbers(column[1:]) else ()
        words = [min(cell_len(word), longest) for cell in column for word in cell.split()]
        least.append(max(*words, *(cell_len(line) for cell in whole for line in cell.split("\n")), 1, 1))
    spare = room - sum(least)
    if spare < 0:
        return []
    widths = list(least)
    for done, number in enumerate(sorted(range(len(full)), key=lambda number: full[number] - least[number])):
        more = min(full[number] - least[number], spare // (len(full) - done))
        widths[number] += more
        spare -= more
    return widths


def _print_blocks(console: Console, titles: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
    """Print each row as its first cell and, indented, a line for each of the others that is not empty."""
    width = max(map(cell_len, titles[1:]), default=0) + 3
    for name, *row in texts:
        console.print(Text(name, "table.header"))
        block = Table.grid(padding=(0, 1))
        block.add_column(width=min(width, console.width // 2))
        block.add_column(overflow="fold")
        for title, cell in zip(titles[1:], row, strict=True):
            if cell:
                block.add_row(Text(f"  {title}:"), Text(cell))
        console.print(block)


def columns(rows: Sequence[Cells]) -> tuple[list[str], list[list[str]]]:
    """Return the titles of the non-empty columns, and each row's texts in that order.

    Examples:
        >>> columns([{'network': 'EAN', 'accuracy (%)': '', 'GMACs': '4.1'}])
        (['network', 'GMACs'], [['EAN', '4.1']])
    """
    every = dict.fromkeys(title for row in rows for title in row)
    titles = [title for title in every if any(row.get(title) for row in rows)]
    return titles, [[row.get(title, "") for title in titles] for row in rows]


def are_numbers(texts: Iterable[str]) -> bool:
    """Whether all non-empty texts of a column are numbers as written in tables.

    Examples:
        >>> are_numbers(['1,234', '', '+1.2 (+1.0 to +2.0)']), are_numbers(['3', '1 of 3'])
        (True, False)
    """
    return all(_NUMBER.fullmatch(text) for text in texts if text)


def spread_text(values: Sequence[float], digits: int) -> str:
    """Format mean and sample standard deviation of at least one value, e.g. over seeds; a zero deviation is omitted.

    Examples:
        >>> spread_text([3, 4, 5], 1), spread_text([3], 1), spread_text([3, 3], 0)
        ('4.0 ± 1.0', '3.0', '3')
    """
    deviation = statistics.stdev(values) if len(values) > 1 else 0
    return f"{statistics.fmean(values):,.{digits}f}" + (f" ± {deviation:,.{digits}f}" if deviation else "")


def metric_texts(metrics: Mapping[str, float], intervals: Mapping[str, Sequence[float]] | None = None) -> list[str]:
    """Format metrics with their labels and units, and with their 95 % intervals where they have one.

    Examples:
        >>> metric_texts({'epoch': 3, 'accuracy/top1': 70.5, 'loss': 0.125})
        ['accuracy 70.50 %', 'loss 0.12']
        >>> metric_texts({'count/MAE': 11.2}, {'count/MAE': [8.06, 15.0]})
        ['MAE 11.20 people [8.06, 15.00]']
    """
    named = {name: value for name, value in metrics.items() if name not in ("epoch", "iteration")}
    between = {name: " [" + ", ".join(f"{end:.2f}" for end in ends) + "]" for name, ends in (intervals or {}).items()}
    return [find_metric(name).text(value) + between.get(name, "") for name, value in named.items()]

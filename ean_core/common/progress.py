"""Progress of long operations: a bar with the remaining time on a terminal, plain lines elsewhere; none if quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from .output import Output, chosen
from .text import visible

LINE_EVERY_S = 15.0


class Progress:
    """Counts the steps of one task.

    Args:
        description: what is being done, e.g. ``'search'``.
        total: number of steps.
        done: steps already done by an earlier, interrupted run.

    Examples:
        >>> with Progress('scoring', total=2) as progress:
        ...     progress.advance('first')
        ...     progress.advance('second')
        scoring: 2/2, 0 s left, second
    """

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        self.description = visible(description)
        self.total = total
        self.done = done
        self._begun_with = done
        self._start = self._last_line = time.monotonic()
        self._bar: Bar | None = None
        self._quiet = chosen() is Output.quiet
        if sys.stdout.isatty() and not self._quiet:
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
            )
            self._task = self._bar.add_task(self.description, total=total, completed=done, note="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def advance(self, note: str = "", replayed: bool = False, steps: int = 1) -> None:
        """Count one or more steps as done.

        Args:
            note: current status to display, such as a loss.
            replayed: the step was only read from a record, so its duration does not enter the time estimate.
            steps: number of steps done.
        """
        self.done += steps
        note = visible(note)
        if replayed:
            self._begun_with = self.done
            self._start = time.monotonic()
        if self._bar:
            self._bar.update(self._task, advance=steps, note=note)
            return
        now = time.monotonic()
        if not self._quiet and (now - self._last_line >= LINE_EVERY_S or self.done == self.total):
            left = (now - self._start) / max(1, self.done - self._begun_with) * (self.total - self.done)
            parts = [f"{self.description}: {self.done}/{self.total}", f"{left:.0f} s left", note]
            print(", ".join(part for part in parts if part), flush=True)
            self._last_line = now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()


def duration(seconds: float, units: int = 2) -> str:
    """Format a duration in its largest units.

    Examples:
        >>> duration(7.2), duration(75), duration(3900), duration(180000), duration(720)
        ('7 s', '1 min 15 s', '1 h 5 min', '2 d 2 h', '12 min')
        >>> duration(4000, units=1)
        '1 h'
    """
    left = max(0, round(seconds))
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or parts or unit == "s":
            parts.append((left // size, unit))
        left %= size
    return " ".join(f"{number} {unit}" for i, (number, unit) in enumerate(parts[:units]) if number or not i)

"""The command ``ean watch``."""

from __future__ import annotations

import time
from pathlib import Path

import typer
from rich.console import Console
from rich.live import Live

from ean_core.watch.state import Several, Standing, look
from ean_core.watch.view import show


def watch(
    work_dir: Path,
    once: bool,
    every: float,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    console = Console(highlight=False)
    seen = look(work_dir)
    if once or not console.is_terminal:
        console.print(show(seen, console.width))
        return
    try:
        with Live(show(seen, console.width), console=console, auto_refresh=False) as live:
            while not _finished(seen):
                time.sleep(every)
                seen = look(work_dir)
                live.update(show(seen, console.width), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _finished(seen: Standing | Several | str) -> bool:
    return not isinstance(seen, str) and seen.finished

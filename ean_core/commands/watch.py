"""The command ``ean watch``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from ean_core.watch.state import Several, Standing, look
from ean_core.watch.view import show


def watch(
    work_dir: Annotated[Path, typer.Argument(help="Folder of a run, or a parent folder of runs.")] = Path("work_dirs"),
    once: Annotated[
        bool, typer.Option("--once", help="Print the state once and exit; the default without a terminal.")
    ] = False,
    every: Annotated[float, typer.Option(help="Seconds between updates.", min=0.1)] = 5.0,
) -> None:
    """Show the progress of a training, a search or a folder of them, until finished."""
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

"""The command ``ean explain``: arguments, options and help, without the modules that do its work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ean_core.commands.options import done_by
from ean_core.common.writing import check_folder

from .named import check_model
from .sources import check_sources


@done_by("tasks.explain:explain")
def explain(
    sources: Annotated[list[str], typer.Argument(help="Images and folders of images.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model of the zoo, a checkpoint, or a run's folder; repeat to compare several."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Class to explain, by name or number; by default the predicted one.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder for figures and scores.")] = Path("work_dirs/explained"),
) -> None:
    """Show where the decisions of classifiers, counters or segmentors come from, side by side.

    The exit status is 1 if any of the images could not be explained.
    """
    for each in model or ():
        check_model(each)
    check_folder(out)
    check_sources(sources)

"""``ean seg predict``: pictures and folders coloured by what is in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import csv_text, write_text
from tasks.pictures import SUFFIXES, read_picture, save_picture
from tasks.sources import OVERLAY, find_sources, printable

from .overlay import draw_overlay
from .segmenter import MODEL, Segmenter
from .voc import as_image, colours

LABELS = ".labels.png"


@dataclass(frozen=True)
class Labelled:
    """What came out of one picture.

    Args:
        file: of it.
        width, height: in pixels.
        shares: of the picture, by class, the largest first.
        problem: why there are none.
    """

    file: str
    width: int | None = None
    height: int | None = None
    shares: dict[str, float] = field(default_factory=dict)
    problem: str = ""


def label_picture(segmenter: Segmenter, path: Path, name: str, out: Path, opacity: float) -> Labelled:
    """Write the labels of a picture and an overlay; a problem instead of an error if it cannot be read.

    Args:
        segmenter: that labels.
        path: of the picture.
        name: of what is written, ``NAME.labels.png`` and ``NAME.overlay.jpg``.
        out: the folder.
        opacity: of the overlay's colours.
    """
    try:
        pixels = read_picture(path)
    except (OSError, ValueError) as error:
        return Labelled(str(path), problem=str(error).removeprefix(f"{path} "))
    height, width = pixels.shape[:2]
    try:
        found = segmenter(pixels)
        overlay = draw_overlay(pixels, found, segmenter.palette, opacity)
    except MemoryError:
        return Labelled(str(path), width, height, problem=f"is too large for this machine's memory: {width} x {height}")
    palette = colours()
    palette[: len(segmenter.palette)] = segmenter.palette
    save_picture(as_image(found.labels, palette), out / f"{name}{LABELS}")
    save_picture(overlay, out / f"{name}{OVERLAY}.jpg", quality=90)
    return Labelled(str(path), width, height, found.shares)


# ---------------------------------------------------------------- command


def predict_command(
    sources: Annotated[list[str], typer.Argument(help="Pictures and folders.")],
    model: Annotated[str, typer.Option(help="A model of the zoo, a checkpoint, or a run's folder.")] = MODEL,
    out: Annotated[Path, typer.Option(help="Folder of labels and overlays.")] = Path("segmented"),
    opacity: Annotated[float, typer.Option(help="Of the colours.", min=0, max=1)] = 0.55,
    device: Annotated[str | None, typer.Option(help="cpu, or cuda if there is a GPU; that by default.")] = None,
) -> None:
    """Label the pixels of pictures: NAME.labels.png, NAME.overlay.jpg with a legend, and classes.csv."""
    listed = [found for found in find_sources(sources) if not found[1].endswith(LABELS)]  # written by this command
    if not listed:
        raise ValueError(f"no picture in {', '.join(sources)}; known are {' '.join(sorted(SUFFIXES))}")
    keep_freed_memory()
    segmenter = Segmenter.load(model, device=device)
    found: list[Labelled] = []
    stopped = False
    try:
        for kind, source, name in listed:
            if kind == "missing":
                one = Labelled(source, problem="there is no such file or folder")
            elif kind == "video":
                one = Labelled(source, problem="is a video or a webcam; only pictures are labelled")
            else:
                one = label_picture(segmenter, Path(source), name, out, opacity)
            found.append(one)
            _say(one)
    except KeyboardInterrupt:
        stopped = True
    good = [one for one in found if not one.problem]
    if good:
        lines = [
            (printable(one.file), one.width, one.height, name, f"{share:.4f}")
            for one in good
            for name, share in one.shares.items()
        ]
        write_text(out / "classes.csv", csv_text(("file", "width", "height", "class", "share"), lines))
    typer.echo(f"{len(good)} of {len(listed)} labelled by {segmenter.name}: {out}")
    if stopped:
        raise typer.Exit(130)
    if not good:
        raise typer.Exit(1)


def _say(one: Labelled) -> None:
    file = printable(one.file)
    if one.problem:
        typer.echo(f"{file}: {one.problem}; skipped", err=True)
        return
    typer.echo(f"{file}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in one.shares.items()))

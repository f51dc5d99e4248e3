"""``ean seg predict``: label the pixels of images, and draw overlays."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import typer

from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import csv_text, write_text
from ean_core.common.text import visible
from ean_core.data.images import read_image
from tasks.pictures import save_picture
from tasks.sources import LABELS, OVERLAY, find_sources, printable, problem_of
from tasks.trained import engine_note

from .overlay import draw_overlay
from .segmenter import Segmenter
from .voc import as_image, colours


@dataclass(frozen=True)
class Labelled:
    """Result for one image.

    Args:
        file: image file.
        width, height: size in pixels.
        shares: fraction of the image by class, largest first.
        problem: why there are no labels.
    """

    file: str
    width: int | None = None
    height: int | None = None
    shares: dict[str, float] = field(default_factory=dict)
    problem: str = ""


def label_picture(segmenter: Segmenter, path: Path, name: str, out: Path, opacity: float) -> Labelled:
    """Write the labels and an overlay of an image; if it cannot be read, return a problem instead of raising.

    Args:
        segmenter: segmentor to use.
        path: image file.
        name: base name of the outputs, ``NAME.labels.png`` and ``NAME.overlay.jpg``.
        out: output folder.
        opacity: opacity of the overlay's colors.
    """
    try:
        pixels = read_image(path)
    except (OSError, ValueError) as error:
        return Labelled(str(path), problem=problem_of(path, error))
    height, width = pixels.shape[:2]
    try:
        found = segmenter(pixels)
        overlay = draw_overlay(pixels, found, segmenter.palette, opacity)
    except MemoryError:
        return Labelled(str(path), width, height, problem=f"is too large for this machine's memory: {width} x {height}")
    palette = colours()
    palette[: len(segmenter.palette)] = segmenter.palette
    save_picture(as_image(found.labels, palette), out / f"{name}{LABELS}.png")
    save_picture(overlay, out / f"{name}{OVERLAY}.jpg", quality=90)
    return Labelled(str(path), width, height, found.shares)


# ---------------------------------------------------------------- command


def predict_command(
    sources: list[str],
    model: str,
    out: Path,
    opacity: float,
    device: str | None,
) -> None:
    """Do the work of the command; :mod:`tasks.segmentation.cli` declares its arguments and options."""
    listed = list(find_sources(sources))
    keep_freed_memory()
    segmenter = Segmenter.load(model, device=device)
    found: list[Labelled] = []
    stopped = False
    try:
        for kind, source, name in listed:
            if kind == "missing":
                one = Labelled(source, problem="there is no such file or folder")
            elif kind == "video":
                one = Labelled(source, problem="is a video or a webcam; only images are labeled")
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
    typer.echo(f"{len(good)} of {len(listed)} labeled by {segmenter.name}{engine_note(segmenter)}: {out}")
    if stopped:
        raise typer.Exit(130)
    if len(good) < len(listed):
        raise typer.Exit(1)


def _say(one: Labelled) -> None:
    file = visible(printable(one.file))
    if one.problem:
        typer.echo(f"{file}: {visible(one.problem)}; skipped", err=True)
        return
    typer.echo(f"{file}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in one.shares.items()))

"""The commands ``ean crowd``: arguments, options and help, without the modules that do their work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ean_core.commands.options import (
    CfgOptions,
    Checkpoint,
    ConfigName,
    Launcher,
    LauncherName,
    Quiet,
    Verbose,
    check_checkpoint,
    done_by,
)
from ean_core.common.config import check_config
from ean_core.common.writing import check_folder
from tasks.named import check_model
from tasks.sources import check_sources

from .choices import FORMAT_NAMES, MEGAPIXELS, OPACITY, OUTSIDE, PORT, UPLOAD_MB
from .task import MODEL, TASK


@done_by("tasks.crowd_counting.prepare:prepare_command")
def prepare(
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of ShanghaiTech, by default EAN_DATA/ShanghaiTech; or of your own images."),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(help="Heads in your own images: a file, or a folder of files; by default those in --root."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help=f"Format of --points: {', '.join(FORMAT_NAMES)}. By default it is recognized."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; by default EAN_DATA/crowd/shanghaitech or EAN_DATA/crowd/own.")
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(help="Kernel sigma: pixels, or adaptive. By default adaptive for part A, 15 for others."),
    ] = None,
    beta: Annotated[float, typer.Option(help="Adaptive kernels: factor of the mean distance to neighbors.")] = 0.3,
    k: Annotated[int, typer.Option(help="Adaptive kernels: number of neighbors.", min=1)] = 3,
    outside: Annotated[str, typer.Option(help="Points outside of their image: clamp, drop or keep.")] = OUTSIDE[0],
    workers: Annotated[int | None, typer.Option(help="Processes; by default one per core.", min=1)] = None,
) -> None:
    """Check annotated images and write points and density maps for training.

    The exit status is 1 if a file was skipped; the others are prepared.
    """


@done_by("tasks.crowd_counting.evaluate:evaluate_command")
def evaluate(
    config: ConfigName,
    checkpoint: Checkpoint,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of ShanghaiTech, or a prepared one; by default the config's."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Compare with this counter on the same images: zoo model, checkpoint, run folder."),
    ] = None,
    time: Annotated[bool, typer.Option(help="Time the counter side by side with the vanilla one.")] = True,
    rounds: Annotated[int, typer.Option(help="Forward passes per network.", min=2)] = 20,
    work_dir: Annotated[
        Path | None, typer.Option(help="Output folder for records; by default the checkpoint's.")
    ] = None,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure a counter on test images, and the time cost of its attention: a row of Table 3."""
    check_config(config, cfg_options or ())
    check_checkpoint(checkpoint)
    if against is not None:
        check_model(against, TASK)


@done_by("tasks.crowd_counting.evaluate:characterize_command")
def characterize(
    config: ConfigName,
    checkpoint: Checkpoint,
    data: Annotated[Path | None, typer.Option(help="Prepared folder; by default the config's.")] = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Store a counter's errors and the statistics of its training images in its checkpoint, as training does."""
    check_config(config, cfg_options or ())
    check_checkpoint(checkpoint)


@done_by("tasks.crowd_counting.predict:predict_command")
def predict(
    sources: Annotated[list[str], typer.Argument(help="Images, folders, videos, or the number of a webcam, 0.")],
    model: Annotated[str, typer.Option(help="Zoo model, checkpoint, or run folder.")] = MODEL,
    out: Annotated[Path, typer.Option(help="Folder for counts and overlays.")] = Path("counted"),
    overlay: Annotated[bool, typer.Option(help="Draw the density heat map on each image.")] = True,
    opacity: Annotated[float, typer.Option(help="Opacity of the heat map.", min=0, max=1)] = OPACITY,
    top: Annotated[
        float | None,
        typer.Option(
            help="People per 100 x 100 pixels at the bright end of all overlays; by default set for each one."
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(help="Count only inside: x0,y0,x1,y1 in pixels, or a JSON file with the corners of a polygon."),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop a video or webcam after this time.", min=0)] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default cuda if there is a GPU.")] = None,
) -> None:
    """Count people in images and videos; writes counts.csv, counts.json, and overlays.

    The exit status is 1 if any of them could not be counted.
    """
    if top is not None and not (math.isfinite(top) and top > 0):
        raise ValueError(f"--top must be a number above 0, got {top}")
    check_model(model, TASK)
    check_folder(out)
    check_sources(sources, videos=True)


@done_by("tasks.crowd_counting.serve:serve_command")
def serve(
    model: Annotated[str, typer.Option(help="Zoo model, checkpoint, or run folder.")] = MODEL,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 admits other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; if taken, the next free one. 0 is any.", min=0, max=65535)] = PORT,
    max_mb: Annotated[
        float, typer.Option(help="Maximum size of an upload, in MB; 32 times this is kept in all.")
    ] = UPLOAD_MB,
    max_pixels: Annotated[float, typer.Option(help="Maximum size of an image, in millions of pixels.")] = MEGAPIXELS,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default cuda if there is a GPU.")] = None,
    open: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Try a counter on a local web page: count people, see where they are, count in a box. Ctrl-C stops it."""
    check_model(model, TASK)

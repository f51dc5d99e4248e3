"""The commands ``ean seg``: arguments, options and help, without the modules that do their work."""

from __future__ import annotations

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

from .task import MODEL, TASK


@done_by("tasks.segmentation.prepare:prepare_command")
def prepare(
    root: Annotated[
        Path | None, typer.Option(help="A VOCdevkit or its VOC2012; by default EAN_DATA/VOCdevkit.")
    ] = None,
    sbd: Annotated[
        Path | None, typer.Option(help="Folder of SBD's archive; by default benchmark_RELEASE beside the devkit.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; by default EAN_DATA/segmentation/voc2012.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one per core.", min=1)] = None,
) -> None:
    """Check the images and masks of Pascal VOC and SBD, and write masks and lists for training.

    The exit status is 1 if a file was skipped; the others are prepared.
    """


@done_by("tasks.segmentation.evaluate:evaluate_command")
def evaluate(
    config: ConfigName,
    checkpoint: Checkpoint,
    time: Annotated[bool, typer.Option(help="Time the segmentor side by side with the vanilla one.")] = True,
    rounds: Annotated[int, typer.Option(help="Forward passes per network.", min=2)] = 20,
    work_dir: Annotated[
        Path | None, typer.Option(help="Output folder for records; by default the checkpoint's.")
    ] = None,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure a segmentor on test images, and the time cost of its attention: a row of Table 5."""
    check_config(config, cfg_options or ())
    check_checkpoint(checkpoint)


@done_by("tasks.segmentation.predict:predict_command")
def predict(
    sources: Annotated[list[str], typer.Argument(help="Images and folders.")],
    model: Annotated[str, typer.Option(help="Zoo model, checkpoint, or run folder.")] = MODEL,
    out: Annotated[Path, typer.Option(help="Folder for labels and overlays.")] = Path("segmented"),
    opacity: Annotated[float, typer.Option(help="Opacity of the colors.", min=0, max=1)] = 0.55,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default cuda if there is a GPU.")] = None,
) -> None:
    """Label the pixels of images; writes NAME.labels.png, NAME.overlay.jpg with a legend, and classes.csv.

    The exit status is 1 if any of them could not be labeled.
    """
    check_model(model, TASK)
    check_folder(out)
    check_sources(sources)

"""The commands of the core: arguments, options and help, without the modules that do their work.

A command's module is imported once its arguments are checked, so that help and refusals take no PyTorch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ean_core.common.choices import Form, Format
from ean_core.common.config import check_config
from ean_core.common.writing import check_folder

from .options import (
    Amp,
    Capture,
    CfgOptions,
    Checkpoint,
    ConfigName,
    Dataset,
    Launcher,
    LauncherName,
    Precision,
    Protocol,
    Quiet,
    Resume,
    Supernet,
    Tensorboard,
    Verbose,
    WorkDir,
    check_checkpoint,
    check_work_dir,
    chosen_format,
    done_by,
)


@done_by("ean_core.commands.quickstart:quickstart")
def quickstart(
    dataset: Annotated[
        Dataset, typer.Option(help="digits takes minutes; cifar100 uses the real data set and takes an hour or more.")
    ] = Dataset.digits,
    work_dir: Annotated[Path | None, typer.Option(help="Output folder; quickstart/DATASET by default.")] = None,
    resume: Resume = False,
    amp: Amp = False,
    cfg_options: CfgOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole pipeline on a small data set: supernet, search, training, timing, and a final table."""
    check_folder(work_dir or Path("quickstart") / dataset.value)


@done_by("ean_core.commands.train:train")
def train(
    config: ConfigName,
    work_dir: WorkDir = None,
    resume: Resume = False,
    amp: Amp = False,
    capture: Capture = False,
    tensorboard: Tensorboard = False,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train a network or a supernet from a config."""
    check_config(config, cfg_options or ())
    check_work_dir(work_dir, config)


@done_by("ean_core.commands.search:search")
def search(
    config: ConfigName,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="ean, exhaustive, local, random, hsp, enas, darts, ga, tpe or optuna; the config's by default."
        ),
    ] = None,
    supernet: Supernet = None,
    work_dir: WorkDir = None,
    resume: Resume = False,
    amp: Amp = False,
    tensorboard: Tensorboard = False,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Search a trained supernet for the best connection scheme."""
    check_config(config, cfg_options or ())
    if supernet is not None:
        check_checkpoint(supernet)
    check_work_dir(work_dir, config)


@done_by("ean_core.commands.compare:compare")
def compare(
    config: ConfigName,
    strategies: Annotated[str, typer.Option(help="Comma-separated names of strategies.")] = (
        "ean,ga,enas,darts,hsp,random,local,exhaustive"
    ),
    evaluations: Annotated[int, typer.Option(help="Maximum number of schemes evaluated by each search.", min=1)] = 90,
    seeds: Annotated[
        int,
        typer.Option(
            help="Number of searches per strategy, with seeds from 0; deterministic strategies run once.", min=1
        ),
    ] = 5,
    supernet: Supernet = None,
    work_dir: Annotated[Path | None, typer.Option(help="Output folder; work_dirs/compare_CONFIG by default.")] = None,
    resume: Resume = False,
    amp: Amp = False,
    tensorboard: Tensorboard = False,
    cfg_options: CfgOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compare search strategies on one supernet: table, Pareto front, convergence and distributions."""
    check_config(config, cfg_options or ())
    if supernet is not None:
        check_checkpoint(supernet)
    check_work_dir(work_dir, f"compare_{Path(config).stem}")


@done_by("ean_core.commands.correlate:correlate")
def correlate(
    config: ConfigName,
    schemes: Annotated[int, typer.Option(help="Number of schemes to train stand-alone.", min=3)] = 10,
    epochs: Annotated[int, typer.Option(help="Epochs of each training.", min=1)] = 5,
    supernet: Supernet = None,
    work_dir: Annotated[Path | None, typer.Option(help="Output folder; work_dirs/correlate_CONFIG by default.")] = None,
    resume: Resume = False,
    amp: Amp = False,
    capture: Capture = False,
    cfg_options: CfgOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train a few random schemes stand-alone and correlate their accuracies with the supernet's."""
    check_config(config, cfg_options or ())
    if supernet is not None:
        check_checkpoint(supernet)
    check_work_dir(work_dir, f"correlate_{Path(config).stem}")


@done_by("ean_core.commands.watch:watch")
def watch(
    work_dir: Annotated[Path, typer.Argument(help="Folder of a run, or a parent folder of runs.")] = Path("work_dirs"),
    once: Annotated[
        bool, typer.Option("--once", help="Print the state once and exit; the default without a terminal.")
    ] = False,
    every: Annotated[float, typer.Option(help="Seconds between updates.", min=0.1)] = 5.0,
) -> None:
    """Show the progress of a training, a search or a folder of them, until finished."""


@done_by("ean_core.commands.train:test")
def test(
    config: ConfigName,
    checkpoint: Checkpoint,
    work_dir: Annotated[Path | None, typer.Option(help="Folder for test.json; the checkpoint's by default.")] = None,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a checkpoint on a config's test images."""
    check_config(config, cfg_options or ())
    check_checkpoint(checkpoint)
    if work_dir is not None:
        check_folder(work_dir)


@done_by("ean_core.commands.time:time")
def time(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="Config files, names of packaged configs, or folders of training runs. Python configs, and modules "
            "that a config or a run names under custom_imports, are executed: give only those that you trust."
        ),
    ],
    batch: Annotated[int, typer.Option(help="Images per forward pass; the paper uses 50.", min=1)] = 50,
    size: Annotated[
        str | None,
        typer.Option(
            help="Image size in pixels, such as 224, or HEIGHTxWIDTH, such as 768x1024; the config's by default."
        ),
    ] = None,
    form: Annotated[
        list[Form] | None,
        typer.Option(
            help="Form to time; repeatable; eager and deployed by default. captured: deployed, with CUDA graphs."
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="Connections that increments are relative to, in the same form.")
    ] = "vanilla",
    dtype: Annotated[Precision, typer.Option(help="Type of weights and feature maps.")] = Precision.fp32,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Number of CPU threads; PyTorch's default if not given.", min=1)
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="Number of rounds: 50 for robust, 1000 for paper.")
    ] = Protocol.robust,
    rounds: Annotated[
        int | None, typer.Option(help="Timed forward passes per network; overrides the protocol.", min=2)
    ] = None,
    per_block: Annotated[bool, typer.Option("--per-block", help="Time the cost of each connection instead.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Record to write, *.json, with a CSV file and a figure next to it; with --per-block, one table "
            "*_blocks_FORM.json per form. By default in the run's folder, or work_dirs/timing_CONFIG.json."
        ),
    ] = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Time vanilla, Org-full, Share-full and EAN networks side by side (Eqn 9), eager and deployed."""
    for name in networks:
        if not Path(name).is_dir():
            check_config(name, cfg_options or ())


@done_by("ean_core.commands.gates:gates")
def gates(
    config: ConfigName,
    checkpoint: Checkpoint,
    work_dir: Annotated[Path | None, typer.Option(help="Output folder; the checkpoint's by default.")] = None,
    cfg_options: CfgOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure how much the attention of each block varies between channels and between images."""
    check_config(config, cfg_options or ())
    check_checkpoint(checkpoint)
    if work_dir is not None:
        check_folder(work_dir)


@done_by("ean_core.commands.fold:fold")
def fold(
    config: ConfigName,
    checkpoint: Checkpoint,
    work_dir: Annotated[Path | None, typer.Option(help="Output folder; work_dirs/fold_CONFIG by default.")] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Largest accepted loss, in the metric's unit; by default 0.2 points of a metric in percent, or one "
            "standard error of the paired difference if that is larger.",
            min=0,
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Training images for the means of gates.", min=1)] = 2000,
    epochs: Annotated[int, typer.Option(help="Epochs of training after folding, with constants.", min=0)] = 0,
    resume: Resume = False,
    cfg_options: CfgOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Replace gates that hardly vary by constants, which cost nothing once deployed."""
    check_config(config, cfg_options or ())
    check_checkpoint(checkpoint)
    check_work_dir(work_dir, f"fold_{Path(config).stem}")


@done_by("ean_core.commands.report:report")
def report(
    work_dirs: Annotated[list[Path], typer.Argument(help="Folders with run records, ledgers and timing files.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
) -> None:
    """Write a report of run records: tables and figures next to the paper's results."""


@done_by("ean_core.commands.train:export")
def export(
    config: ConfigName,
    checkpoint: Checkpoint,
    out: Annotated[
        Path | None, typer.Argument(help="File to write; with --format, next to the checkpoint by default.")
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="safetensors: backbone weights; onnx, pt2: deployed network. By default from OUT's suffix."),
    ] = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Export the backbone weights of a trained network, or the deployed network as ONNX or a PyTorch program."""
    chosen_format(out, format)
    check_config(config, cfg_options or ())
    check_checkpoint(checkpoint)

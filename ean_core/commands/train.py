"""The commands ``ean train``, ``ean test`` and ``ean export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from mmengine.dist import is_main_process

from ean_core.common.config import config_name
from ean_core.common.errors import unknown_name
from ean_core.inference.export import Format, export_backbone, export_network
from ean_core.runs.capture import use_capture
from ean_core.runs.curves import use_tensorboard
from ean_core.runs.folder import TEST, Run, chosen_checkpoint
from ean_core.runs.training import beyond, planned, run_test, run_training
from ean_core.show.table import metric_texts

from .options import (
    Amp,
    Capture,
    CfgOptions,
    Checkpoint,
    ConfigName,
    Launcher,
    LauncherName,
    Resume,
    Tensorboard,
    WorkDir,
    prepare,
    resumable,
    use_bf16,
)


def train(
    config: ConfigName,
    work_dir: WorkDir = None,
    resume: Resume = False,
    amp: Amp = False,
    capture: Capture = False,
    tensorboard: Tensorboard = False,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
) -> None:
    """Train a network or a supernet from a config."""
    cfg, folder = prepare(config, work_dir, cfg_options)
    if amp:
        use_bf16(cfg)
    if capture:
        use_capture(cfg)
    if tensorboard:
        use_tensorboard(cfg)
    before = Run(folder)
    ended = before.latest if resume and before.finished else None
    with resumable(folder):
        final = run_training(cfg, folder, resume=resume, launcher=launcher.value)
    if is_main_process():
        if final == ended:
            entry, length = planned(cfg)
            typer.echo(f"{folder} has ended, at {entry}={length}: nothing to resume; {beyond(cfg, final, folder)}")
        record = Run(folder).record
        assert record is not None  # the training has ended
        rate = record["images_per_second"]
        parts = [f"trained: {final}", *([f"{rate:.0f} images/s"] if rate else [])]
        typer.echo(", ".join([*parts, *metric_texts(record["validation"] or {})]))
        if "best" in record:
            best = record["best"]
            unit = "epoch" if "epoch" in best else "iteration"
            found = next(one for one in record["validations"] if one.get(unit) == best[unit])
            typer.echo(", ".join([f"best: {folder / best['checkpoint']}", *metric_texts(found)]))


def test(
    config: ConfigName,
    checkpoint: Checkpoint,
    work_dir: Annotated[Path | None, typer.Option(help="Folder for test.json; the checkpoint's by default.")] = None,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
) -> None:
    """Evaluate a checkpoint on a config's test images."""
    checkpoint = chosen_checkpoint(checkpoint)
    cfg, folder = prepare(config, work_dir or checkpoint.parent, cfg_options)
    metrics = run_test(cfg, checkpoint, folder, launcher.value)
    if is_main_process():
        record = Run(folder).test or {}
        typer.echo(f"{', '.join(metric_texts(metrics, record.get('intervals')))}; record: {folder / TEST}")


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
    if out is None and format is None:
        raise ValueError("give a file to write, or --format with one of " + ", ".join(kind.value for kind in Format))
    kind = format.value if format else out.suffix.removeprefix(".") if out else ""
    if kind not in [known.value for known in Format]:
        raise unknown_name("format", kind, [known.value for known in Format])
    cfg, _ = prepare(config, None, cfg_options)
    checkpoint = chosen_checkpoint(checkpoint)
    out = out or checkpoint.with_name(f"{config_name(cfg)}.{kind}")
    if out.suffix != f".{kind}":
        raise ValueError(f"--format {kind} needs a file like {out.stem}.{kind}, got {out.name}")
    if kind == "safetensors":
        export_backbone(cfg, checkpoint, out)
        typer.echo(f"backbone: {out}; use it with init_cfg=dict(type='Pretrained', checkpoint='{out}')")
        return
    described = export_network(cfg, checkpoint, out)
    typer.echo(f"network: {out}, {out.stat().st_size / 1e6:.1f} MB; {described}")

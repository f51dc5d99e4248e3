"""Training and testing from a config: the commands ``ean train``, ``ean test`` and ``ean export``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import torch
import typer
from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS
from mmengine.runner import Runner

from .checkpoint import load_weights, read_state_dict, save_weights
from .config import load_config
from .record import write_record
from .runner import ProgressHook, latest_checkpoint
from .supernet import find_backbone

CfgOptions = Annotated[
    list[str] | None,
    typer.Option(help="Overrides KEY=VALUE, several after one flag: model.backbone.scheme=full train_cfg.max_epochs=5"),
]
ConfigName = Annotated[str, typer.Argument(help="A config file, or the name of a packaged config.")]
WorkDir = Annotated[Path | None, typer.Option(help="Folder of logs and checkpoints; work_dirs/CONFIG if not given.")]


class Launcher(str, Enum):
    """How the processes of a run were started."""

    none = "none"
    pytorch = "pytorch"
    slurm = "slurm"
    mpi = "mpi"


def build_runner(config: Config, work_dir: Path, launcher: str = "none") -> Runner:
    """The Runner of a config, on GPUs or, with gloo between processes, on CPUs."""
    config.work_dir = str(work_dir)
    config.launcher = launcher
    # mmengine shares logs and message hubs between runners of one name, which by default has a resolution of a second.
    config.experiment_name = f"{work_dir.name}_{uuid4().hex[:8]}"
    if launcher == "pytorch" and not torch.cuda.is_available():
        # mmengine would select a CUDA device and hand it to DistributedDataParallel.
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        config.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "device_ids": None,
            "broadcast_buffers": False,
            "find_unused_parameters": config.get("find_unused_parameters", False),
        }
    return RUNNERS.build(config)


def run_training(config: Config, work_dir: Path, *, resume: bool = False, launcher: str = "none") -> Path:
    """Train what a config describes.

    Args:
        config: a config with ``train_cfg``.
        work_dir: where logs, checkpoints and ``record.json`` go.
        resume: continue after the last finished epoch, if there is one.
        launcher: how the processes were started.

    Returns:
        The checkpoint of the last epoch.

    Raises:
        FileExistsError: if ``work_dir`` holds a run and ``resume`` is not set.
    """
    latest = latest_checkpoint(work_dir)
    if latest and not resume:
        raise FileExistsError(
            f"{work_dir} holds a run up to {latest.name}; add --resume to continue it, or --work-dir to start elsewhere"
        )
    if latest:
        config.load_from = str(latest)
        config.resume = True
    runner = build_runner(config, work_dir, launcher)
    try:
        runner.train()
    finally:
        for hook in runner.hooks:
            if isinstance(hook, ProgressHook):
                hook.stop()
    final = latest_checkpoint(work_dir)
    if final is None:
        raise RuntimeError(f"training ended without a checkpoint in {work_dir}; is default_hooks.checkpoint removed?")
    return final


def run_test(config: Config, checkpoint: Path, work_dir: Path, launcher: str = "none") -> dict[str, float]:
    """Measure a checkpoint on the test images of a config, once, and write ``test.json``.

    Returns:
        Accuracies in percent: ``accuracy/top1``, for many classes also ``accuracy/top5``.

    Raises:
        ValueError: if the checkpoint is not of the config's network.
    """
    config.load_from = None
    config.resume = False
    runner = build_runner(config, work_dir, launcher)
    load_weights(runner.model.module if launcher != "none" else runner.model, checkpoint, strict=True)
    metrics = {name: float(value) for name, value in runner.test().items()}
    model = runner.model
    if runner.rank == 0:
        write_record(
            work_dir / "test.json",
            kind="test",
            config=Path(config.filename).stem if config.filename else None,
            checkpoint={"name": checkpoint.name, "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()},
            scheme=str(find_backbone(model).scheme),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            images=len(runner.test_dataloader.dataset),
            metrics=metrics,
        )
    return metrics


# ---------------------------------------------------------------- commands


def train(
    config: ConfigName,
    work_dir: WorkDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the last finished epoch.")] = False,
    amp: Annotated[bool, typer.Option("--amp", help="bf16 autocast, on CPUs and GPUs.")] = False,
    cfg_options: CfgOptions = None,
    launcher: Annotated[Launcher, typer.Option(help="How several processes were started.")] = Launcher.none,
) -> None:
    """Train a network or a supernet from a config."""
    cfg, folder = _prepare(config, work_dir, cfg_options)
    if amp:
        cfg.optim_wrapper.type = "Bf16OptimWrapper"
    try:
        final = run_training(cfg, folder, resume=resume, launcher=launcher.value)
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; the same command with --resume continues {folder}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"trained: {final}")


def test(
    config: ConfigName,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of the whole network.")],
    work_dir: WorkDir = None,
    cfg_options: CfgOptions = None,
    launcher: Annotated[Launcher, typer.Option(help="How several processes were started.")] = Launcher.none,
) -> None:
    """Measure a checkpoint on a config's test images."""
    cfg, folder = _prepare(config, work_dir, cfg_options)
    metrics = run_test(cfg, checkpoint, folder, launcher.value)
    figures = ", ".join(f"{name} {value:.2f} %" for name, value in metrics.items())
    typer.echo(f"{figures}; record: {folder / 'test.json'}")


def export(
    config: ConfigName,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of the whole network.")],
    out: Annotated[Path, typer.Argument(help="File to write, *.safetensors.")],
    cfg_options: CfgOptions = None,
) -> None:
    """Write a trained network's backbone as plain tensors, to initialise backbones in other configs."""
    if out.suffix != ".safetensors":
        raise ValueError(f"backbones are written as safetensors, got {out.name!r}; for example {out.stem}.safetensors")
    cfg, _ = _prepare(config, None, cfg_options)
    export_backbone(cfg, checkpoint, out)
    typer.echo(f"backbone: {out}; use it with init_cfg=dict(type='Pretrained', checkpoint='{out}')")


def export_backbone(config: Config, checkpoint: Path, out: Path) -> None:
    """Write the backbone of a checkpoint, checked against the config's network, as safetensors with plain metadata.

    Raises:
        ValueError: if the checkpoint is not of the config's network.
    """
    backbone = MODELS.build(config.model.backbone)
    load_weights(backbone, checkpoint, prefix="backbone.", strict=True)
    own = backbone.state_dict()
    state = {name: value for name, value in read_state_dict(checkpoint, "backbone.").items() if name in own}
    description = {
        "type": type(backbone).__name__,
        "depth": str(backbone.depth),
        "attention": str(backbone.attention_cfg["type"]),
        "scheme": str(backbone.scheme),
        "shared": str(backbone.shared),
    }
    save_weights(state, out, description)


def _prepare(config: str, work_dir: Path | None, cfg_options: Sequence[str] | None) -> tuple[Config, Path]:
    cfg = load_config(config, cfg_options or ())
    return cfg, work_dir or Path("work_dirs") / Path(cfg.filename).stem

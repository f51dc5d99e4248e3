"""Training and testing from a config: the commands ``ean train``, ``ean test`` and ``ean export``."""

from __future__ import annotations

import atexit
import copy
import gc
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import torch
import typer
from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.registry import MODELS, RUNNERS
from mmengine.runner import Runner

from .addresses import BACKBONE
from .backbone import EANResNet
from .capture import use_capture
from .checkpoint import load_weights, read_meta, save_weights
from .classifier import ImageClassifier
from .config import read_settings
from .curves import place_curves, use_tensorboard
from .errors import InUseError, differences, unknown_name, writing
from .inference.export import Format, write_onnx, write_pt2
from .memory import keep_freed_memory
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
from .record import read_record, write_record
from .runner import ProgressHook, chosen_checkpoint, latest_checkpoint
from .supernet import find_backbone

#: What a resumed run must have in common with the run it goes on with.
RUN = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "randomness")
#: What a network must have in common with the one whose checkpoint it takes.
NETWORK = ("model.num_classes", "model.data_preprocessor", "model.backbone")


def build_runner(config: Config, work_dir: Path, launcher: str = "none") -> Runner:
    """The Runner of a config, on GPUs or, with gloo between processes, on CPUs.

    Raises:
        ValueError: if the launcher cannot start processes on this machine.
    """
    initialize_processes(config, launcher)
    keep_freed_memory()
    config.work_dir = str(work_dir)
    config.launcher = launcher
    # mmengine shares logs and message hubs between runners of one name, which by default has a resolution of a second.
    config.experiment_name = f"{work_dir.name}_{uuid4().hex[:8]}"
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
        InUseError: if another process trains in it.
        ValueError: if the run in ``work_dir`` is of another network, data, optimisation or seed.
        DivergedError: if losses or weights are no finite numbers any more.
    """
    initialize_processes(config, launcher)
    with _alone(work_dir):
        return _train(config, work_dir, resume, launcher)


def _train(config: Config, work_dir: Path, resume: bool, launcher: str) -> Path:
    latest = _agreed(latest_checkpoint(work_dir))
    if latest and not resume:
        raise FileExistsError(
            f"{work_dir} holds a run up to {latest.name}; add --resume to continue it, or --work-dir to start elsewhere"
        )
    if latest:
        check_same_settings(trained_config(latest), config, RUN, f"{work_dir} holds a run with")
        config.load_from = str(latest)
        config.resume = True
    place_curves(config, work_dir, latest)
    runner = build_runner(config, work_dir, launcher)
    try:
        runner.train()
    finally:
        for hook in runner.hooks:
            if isinstance(hook, ProgressHook):
                hook.stop()
    barrier()  # the first process writes the checkpoint
    final = _agreed(latest_checkpoint(work_dir))
    if final is None:
        raise ValueError(f"training left no checkpoint in {work_dir}; does default_hooks.checkpoint save every epoch?")
    return final


@contextmanager
def _alone(work_dir: Path) -> Iterator[None]:
    """Keep processes of other runs from training in a folder."""
    lock = FileLock(work_dir / "train.lock", timeout=0)
    held = [True]
    if is_main_process():
        with writing(work_dir):
            work_dir.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout:
                held = [False]
    broadcast_object_list(held)
    if not held[0]:
        raise InUseError(f"another process trains in {work_dir}; wait for it, or choose another --work-dir")
    try:
        yield
    finally:
        lock.release()


def check_same_settings(before: Config | Mapping[str, Any], now: Config, names: Sequence[str], what: str) -> None:
    """Refuse to go on with a run, or to take a checkpoint, under other settings than it was made with.

    Args:
        before, now: the settings, then and now.
        names: the entries that count.
        what: the beginning of the message: who has other settings.

    Raises:
        ValueError: that names the first entries that differ.
    """
    different = [entry for name in names for entry in differences(_entry(before, name), _entry(now, name), name)]
    if different:
        listing = "; ".join(f"{name} is {old!r} there, {new!r} here" for name, old, new in different[:4])
        raise ValueError(f"{what} other settings: {listing}. Give the same --cfg-options, or another file or folder")


def check_same_network(checkpoint: Path, config: Config) -> None:
    """Refuse a checkpoint of ours whose network is not the config's, also where the tensors would fit.

    A shared module has the same tensors whatever the scheme, so only the settings in the checkpoint tell networks
    apart. Any sub-network of a supernet is allowed.

    Raises:
        ValueError: that names the entries that differ.
    """
    before = trained_config(checkpoint)
    if before is None:
        return
    now = copy.deepcopy(config)
    for settings in (before, now):  # where weights came from before training says nothing of the network
        ((settings.get("model") or {}).get("backbone") or {}).pop("init_cfg", None)
    if "scheme" in (before.get("default_hooks") or {}):
        now.model.backbone.scheme = before.model.backbone.scheme
    check_same_settings(before, now, NETWORK, f"{checkpoint} was trained with")


def run_test(config: Config, checkpoint: Path, work_dir: Path, launcher: str = "none") -> dict[str, float]:
    """Measure a checkpoint on the test images of a config, once, and write ``test.json``.

    Returns:
        Metrics by name; those of classifiers are accuracies in percent, ``accuracy/top1`` and for many classes also
        ``accuracy/top5``.

    Raises:
        ValueError: if the checkpoint is not of the config's network.
    """
    check_same_network(checkpoint, config)
    config.load_from = None
    config.resume = False
    runner = build_runner(config, work_dir, launcher)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_weights(model, checkpoint, strict=True)
    metrics = {name: float(value) for name, value in runner.test().items()}
    if is_main_process():
        write_record(
            work_dir / "test.json",
            kind="test",
            config=Path(config.filename).stem if config.filename else None,
            checkpoint={"name": checkpoint.name, "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()},
            scheme=str(find_backbone(model).scheme),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            data=config.test_dataloader.dataset.to_dict(),
            images=len(runner.test_dataloader.dataset),
            metrics=metrics,
        )
    return metrics


def export_backbone(config: Config, checkpoint: Path, out: Path) -> None:
    """Write the backbone of a checkpoint, checked against the config's network, as safetensors with plain metadata.

    Raises:
        ValueError: if the checkpoint is not of the config's network.
    """
    check_same_network(checkpoint, config)
    backbone = MODELS.build(config.model.backbone)
    load_weights(backbone, checkpoint, prefix=BACKBONE, strict=True)
    save_weights(backbone.state_dict(), out, describe(backbone))


def export_network(config: Config, checkpoint: Path, out: Path) -> None:
    """Write the deployed classifier of a checkpoint as ``.onnx`` or ``.pt2``, after comparing their outputs.

    Raises:
        ValueError: if the checkpoint is not of the config's network, or that is no classifier.
    """
    check_same_network(checkpoint, config)
    network = MODELS.build(config.model).eval()
    if not isinstance(network, ImageClassifier):
        raise ValueError(
            f"{out.suffix} files are written of classifiers, this is a {type(network).__name__}; --format safetensors "
            "writes its backbone"
        )
    load_weights(network, checkpoint, strict=True)
    size = config.get("image_size") or network.backbone.usual_size
    if out.suffix == ".pt2":
        write_pt2(network, out, size)
    else:
        write_onnx(network, out, size, {**describe(network.backbone), "config": _name(config)})


def metric_texts(metrics: Mapping[str, float]) -> list[str]:
    """Metrics for a reader; accuracies, and those of mmsegmentation, are in percent.

    Examples:
        >>> metric_texts({'epoch': 3, 'accuracy/top1': 70.5, 'count/MAE': 12.345, 'mIoU': 30.1})
        ['accuracy/top1 70.50 %', 'count/MAE 12.35', 'mIoU 30.10 %']
    """
    percent = ("accuracy", "mIoU", "mAcc", "aAcc")
    units = {name: " %" * name.startswith(percent) for name in metrics if name != "epoch"}
    return [f"{name} {metrics[name]:.2f}{unit}" for name, unit in units.items()]


def describe(backbone: EANResNet) -> dict[str, str]:
    """What the files of a network say of it: its class, depth, attention and connections."""
    return {
        "type": type(backbone).__name__,
        "depth": str(backbone.depth),
        "attention": str(backbone.attention_cfg["type"]),
        "scheme": str(backbone.scheme),
        "shared": str(backbone.shared),
    }


def _name(config: Config) -> str:
    return Path(config.filename).stem if config.filename else ""


# ---------------------------------------------------------------- commands


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
    with resumable(folder):
        final = run_training(cfg, folder, resume=resume, launcher=launcher.value)
    if is_main_process():
        record = read_record(folder / "record.json")
        parts = [f"trained: {final}", f"{record['images_per_second']:.0f} images/s"]
        typer.echo(", ".join([*parts, *metric_texts(record["validation"] or {})]))
        if "best" in record:
            found = next(one for one in record["validations"] if one["epoch"] == record["best"]["epoch"])
            typer.echo(", ".join([f"best: {folder / record['best']['checkpoint']}", *metric_texts(found)]))


def test(
    config: ConfigName,
    checkpoint: Checkpoint,
    work_dir: Annotated[Path | None, typer.Option(help="Folder of test.json; the checkpoint's by default.")] = None,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
) -> None:
    """Measure a checkpoint on a config's test images."""
    checkpoint = chosen_checkpoint(checkpoint)
    cfg, folder = prepare(config, work_dir or checkpoint.parent, cfg_options)
    metrics = run_test(cfg, checkpoint, folder, launcher.value)
    if is_main_process():
        typer.echo(f"{', '.join(metric_texts(metrics))}; record: {folder / 'test.json'}")


def export(
    config: ConfigName,
    checkpoint: Checkpoint,
    out: Annotated[
        Path | None, typer.Argument(help="File to write; with --format, beside the checkpoint by default.")
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="safetensors: the backbone's weights. onnx, pt2: the deployed network. By OUT's suffix."),
    ] = None,
    cfg_options: CfgOptions = None,
) -> None:
    """Write a trained network's backbone as plain tensors, or the deployed network as ONNX or a PyTorch program."""
    if out is None and format is None:
        raise ValueError("give a file to write or --format, one of " + ", ".join(kind.value for kind in Format))
    kind = format.value if format else out.suffix.removeprefix(".") if out else ""
    if kind not in [known.value for known in Format]:
        raise unknown_name("format", kind, [known.value for known in Format])
    cfg, _ = prepare(config, None, cfg_options)
    checkpoint = chosen_checkpoint(checkpoint)
    out = out or checkpoint.with_name(f"{Path(cfg.filename).stem}.{kind}")
    if out.suffix != f".{kind}":
        raise ValueError(f"--format {kind} writes a file like {out.stem}.{kind}, got {out.name}")
    if kind == "safetensors":
        export_backbone(cfg, checkpoint, out)
        typer.echo(f"backbone: {out}; use it with init_cfg=dict(type='Pretrained', checkpoint='{out}')")
        return
    export_network(cfg, checkpoint, out)
    channels = cfg.model.backbone.get("in_channels", 3)
    typer.echo(
        f"network: {out}, {out.stat().st_size / 1e6:.1f} MB; from float32 images (N, {channels}, H, W), "
        f"{'RGB' if channels == 3 else 'channels as in training'}, 0 to 255, to logits (N, {cfg.model.num_classes})"
    )


# ---------------------------------------------------------------- processes and settings


def initialize_processes(config: Config, launcher: str) -> None:
    """Join the processes of a run, on GPUs or, where mmengine would look for some, on CPUs."""
    if launcher == "none":
        return
    if torch.cuda.is_available():
        if launcher == "mpi":  # mmengine reads it, but does not set it
            os.environ.setdefault("LOCAL_RANK", os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"))
        if not is_distributed():
            init_dist(launcher, **config.env_cfg.get("dist_cfg", {"backend": "nccl"}))
        return
    if launcher != "pytorch":
        raise ValueError(f"--launcher {launcher} needs GPUs; on CPUs start the processes with torchrun: pytorch")
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
        atexit.register(_leave_processes)
    config.sync_bn = None  # PyTorch's synchronised batch norm is for GPUs
    config.model_wrapper_cfg = {
        "type": "MMDistributedDataParallel",
        "device_ids": None,
        "broadcast_buffers": False,
        "find_unused_parameters": config.get("find_unused_parameters", False),
    }


def _leave_processes() -> None:
    """End gloo's threads before the interpreter does: one that still runs then aborts a process that is done.

    They end with the last reference to the group. A runner and its hooks refer to each other and to the network that
    holds the group, so only the collector frees them.
    """
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _agreed(path: Path | None) -> Path | None:
    """What the first process sees, on all of them."""
    seen = [path]
    broadcast_object_list(seen)
    return seen[0]


def trained_config(checkpoint: Path) -> Config | None:
    """The settings in a checkpoint of ours; None for other files.

    Raises:
        ValueError: if there is anything in them but plain settings.
    """
    if checkpoint.suffix != ".pth" or not checkpoint.is_file():
        return None
    text = read_meta(checkpoint).get("cfg")
    if not isinstance(text, str):
        return None
    try:
        return read_settings(text)
    except ValueError as error:
        raise ValueError(f"the settings in {checkpoint} cannot be read: {error}") from error


def _entry(config: Config | Mapping[str, Any], name: str) -> Any:
    """An entry by its dotted name, as plain values."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if hasattr(value, "get") else None
    return json.loads(json.dumps(value, default=str))

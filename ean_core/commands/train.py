"""The work of ``ean train``, ``ean test`` and ``ean export``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import typer
from mmengine.config import Config
from mmengine.dist import is_main_process

from ean_core.common.choices import Format
from ean_core.common.config import config_name, packaged_configs
from ean_core.common.tasks import task_of_network
from ean_core.inference.export import export_backbone, export_network
from ean_core.runs.capture import use_capture
from ean_core.runs.curves import use_tensorboard
from ean_core.runs.folder import TEST, Run, chosen_checkpoint
from ean_core.runs.hooks import worsening
from ean_core.runs.outside import check_data
from ean_core.runs.terminal import started_from
from ean_core.runs.training import beyond, planned, run_test, run_training
from ean_core.show.table import metric_texts

from .options import Launcher, chosen_format, prepare, resumable, suggest, use_bf16

#: Entries of configs that only a training reads.
_TRAINING = ("train_cfg", "optim_wrapper", "param_scheduler", "default_hooks", "custom_hooks", "load_from")
#: Further entries that a test does not read.
_OTHER_IMAGES = ("train_dataloader", "val_dataloader", "val_evaluator", "val_cfg", "randomness")


def train(
    config: str,
    work_dir: Path | None,
    resume: bool,
    amp: bool,
    capture: bool,
    tensorboard: bool,
    cfg_options: list[str] | None,
    launcher: Launcher,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    cfg, folder = prepare(config, work_dir, cfg_options)
    if amp:
        use_bf16(cfg)
    if capture:
        use_capture(cfg)
    if tensorboard:
        use_tensorboard(cfg)
    before, origin = Run(folder), started_from(cfg)
    ended = before.latest if resume and before.finished else None
    with resumable(folder):
        final = run_training(cfg, folder, resume=resume, launcher=launcher.value)
    if is_main_process():
        if final == ended:
            entry, length = planned(cfg)
            typer.echo(f"{folder} has ended, at {entry}={length}: nothing to resume; {beyond(cfg, final, folder)}")
        run = Run(folder)
        record, validations = run.record, run.validations
        assert record is not None  # the training has ended
        rate = record["images_per_second"]
        last = validations[-1] if validations else None
        validated = f"; validation: {', '.join(metric_texts(last))}" if last else ""
        typer.echo(f"trained: {final}{f', {rate:.0f} images/s' if rate else ''}{validated}")
        if "best" in record:
            best = record["best"]
            last = run.chosen_validation
            assert last is not None  # it was selected by one
            typer.echo(", ".join([f"best: {folder / best['checkpoint']}", *metric_texts(last)]))
        if final != ended:
            _suggest_next(config, cfg, folder, final, cfg_options)
        change = worsening(validations, last) if last else None
        if change:
            typer.echo(
                f"worse than before training: {change.metric.label} on validation images was "
                f"{change.metric.measured(change.before)} and is {change.metric.measured(change.after)}; keep the "
                f"weights that it started from{f', {origin}' if origin else ''}"
            )


def _suggest_next(config: str, cfg: Config, folder: Path, final: Path, cfg_options: Sequence[str] | None) -> None:
    """Suggest the search of a supernet, and of any other network the test or, without test images, the use."""
    if "scheme" in (cfg.get("default_hooks") or {}):
        search = f"search_{(config_name(cfg) or '').removeprefix('supernet_')}"
        if search in packaged_configs():
            elsewhere = [] if folder == Path("work_dirs") / str(config_name(cfg)) else ["--supernet", final]
            suggest("search it", "ean", "search", search, *elsewhere, cfg_options=_without(cfg_options, _TRAINING))
    elif _has_test_images(cfg):
        options = _without(cfg_options, (*_TRAINING, *_OTHER_IMAGES))
        suggest("test it", "ean", "test", config, folder, cfg_options=options)
    elif (task := task_of_network(cfg.model.type)) and task.predict and cfg.model.type == task.networks[0]:
        suggest("use it", "ean", *task.predict.split(), "IMAGES", "--model", folder)


def _has_test_images(cfg: Config) -> bool:
    try:
        check_data(cfg, "test_dataloader")
    except (FileNotFoundError, ValueError):  # as in a folder without test images
        return False
    return bool(cfg.get("test_dataloader"))


def _without(cfg_options: Sequence[str] | None, entries: Sequence[str]) -> list[str]:
    """Return the ``--cfg-options`` that set none of these entries of a config, nor anything in them."""
    return [option for option in cfg_options or () if re.split(r"[.=]", option, maxsplit=1)[0] not in entries]


def test(
    config: str,
    checkpoint: Path,
    work_dir: Path | None,
    cfg_options: list[str] | None,
    launcher: Launcher,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    checkpoint = chosen_checkpoint(checkpoint)
    cfg, folder = prepare(config, work_dir or checkpoint.parent, cfg_options)
    metrics = run_test(cfg, checkpoint, folder, launcher.value)
    if is_main_process():
        record = Run(folder).test or {}
        typer.echo(f"{', '.join(metric_texts(metrics, record.get('intervals')))}; record: {folder / TEST}")
        if Run(checkpoint.parent).finished:
            suggest("time it", "ean", "time", checkpoint.parent)


def export(
    config: str,
    checkpoint: Path,
    out: Path | None,
    format: Format | None,
    cfg_options: list[str] | None,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    kind = chosen_format(out, format)
    cfg, _ = prepare(config, None, cfg_options)
    checkpoint = chosen_checkpoint(checkpoint)
    out = out or checkpoint.with_name(f"{config_name(cfg)}.{kind}")
    if kind == "safetensors":
        export_backbone(cfg, checkpoint, out)
        typer.echo(f"backbone: {out}; use it with init_cfg=dict(type='Pretrained', checkpoint='{out}')")
        return
    described = export_network(cfg, checkpoint, out)
    typer.echo(f"network: {out}, {out.stat().st_size / 1e6:.1f} MB; {described}")

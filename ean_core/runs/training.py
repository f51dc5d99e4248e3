"""Train and test the network of a config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ean_core.backbone import find_backbone
from ean_core.common.config import command_name, config_name
from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import write_record
from ean_core.weights.files import WeightsFile, read_meta
from ean_core.weights.loading import load_weights

from .curves import place_curves
from .folder import RUN_SETTINGS, TEST, Run, check_same_network, check_same_settings, trained_config
from .hooks import scalars
from .initial import check_weights, checkpoint_to_load
from .outside import adopt, check_data, datasets_of, naming_missing_data
from .processes import agreed, initialize_processes, locked, starting
from .terminal import ProgressHook, announce, data_text


def build_runner(config: Config, work_dir: Path, launcher: str = "none") -> Runner:
    """Build the Runner of a config, on GPUs or, with gloo between processes, on CPUs.

    Raises:
        ValueError: if the launcher cannot start processes on this machine.
    """
    initialize_processes(config, launcher)
    keep_freed_memory()
    config.work_dir = str(work_dir)
    config.launcher = launcher
    config.setdefault("runner_type", "EANRunner")  # which reads checkpoints without executing anything
    # mmengine shares logs and message hubs between runners of the same name, by default a timestamp in whole seconds.
    config.experiment_name = f"{work_dir.name}_{uuid4().hex[:8]}"
    return RUNNERS.build(config)


def run_training(config: Config, work_dir: Path, *, resume: bool = False, launcher: str = "none") -> Path:
    """Train the network of a config, of this package or of another OpenMMLab library.

    Args:
        config: a config with ``train_cfg``, by epochs or by iterations.
        work_dir: folder for logs, checkpoints and ``record.json``.
        resume: continue after the last checkpoint, if there is one.
        launcher: how the processes were started.

    Returns:
        The last checkpoint.

    Raises:
        FileNotFoundError: if files of a data set, or initial weights, are missing.
        FileExistsError: if ``work_dir`` holds a run and ``resume`` is not set.
        InUseError: if another process is training in it.
        ValueError: if the run in ``work_dir`` has a different network, data, optimization or seed, or was planned for
            another length on which its schedule depends.
        DivergedError: if a loss or weight is NaN or infinite.
    """
    adopt(config)
    check_data(config, "train_dataloader", "val_dataloader")
    check_weights(config)
    initialize_processes(config, launcher)
    with starting(work_dir), locked(work_dir):
        return _train(config, work_dir, resume, launcher)


def run_test(config: Config, checkpoint: Path, work_dir: Path, launcher: str = "none") -> dict[str, float]:
    """Evaluate a checkpoint on the test images of a config, once, and write ``test.json``.

    Returns:
        Metrics by name; for classifiers, accuracies in percent: ``accuracy/top1`` and, with many classes,
        ``accuracy/top5``.

    Raises:
        FileNotFoundError: if a data set's files are missing.
        ValueError: if the checkpoint does not belong to the config's network.
    """
    adopt(config)
    check_data(config, "test_dataloader")
    with starting(work_dir):
        return _test(config, checkpoint, work_dir, launcher)


def _test(config: Config, checkpoint: Path, work_dir: Path, launcher: str) -> dict[str, float]:
    file = WeightsFile(checkpoint)
    check_same_network(file, config)
    config.load_from = None
    config.resume = False
    runner = build_runner(config, work_dir, launcher)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_weights(model, file, strict=True)
    with naming_missing_data(datasets_of(config, "test_dataloader")):
        data = data_text(config.test_dataloader, runner.test_dataloader.dataset)
        announce("test", config, model, data, work_dir, f"weights: {checkpoint}")
        metrics = scalars(runner.test())
    if is_main_process():
        write_record(
            Run(work_dir).path(TEST),
            kind="test",
            config=config_name(config),
            checkpoint={"name": checkpoint.name, "sha256": file.sha256},
            scheme=str(find_backbone(model).scheme),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            data=config.test_dataloader.dataset.to_dict(),
            images=len(runner.test_dataloader.dataset),
            metrics=metrics,
            **_stated(runner),
        )
    return metrics


def _stated(runner: Runner) -> dict[str, dict[str, Any]]:
    """Fields of the test record from metrics that have them: ``intervals``, the 95 % intervals by name of the metric,
    and ``correct``, the images that a classifier got right (see :class:`~ean_core.classifier.TopK`)."""
    found: dict[str, dict[str, Any]] = {"intervals": {}, "correct": {}}
    for metric in runner.test_evaluator.metrics:
        for name, values in found.items():
            values.update(getattr(metric, name, {}))
    return {name: values for name, values in found.items() if values}


def _train(config: Config, work_dir: Path, resume: bool, launcher: str) -> Path:
    latest = agreed(Run(work_dir).latest)
    if latest and not resume:
        raise FileExistsError(
            f"{work_dir} holds a run up to {latest.name}; add --resume to continue it, or --work-dir to start elsewhere"
        )
    if latest:
        before = trained_config(latest)
        for settings in filter(None, (before, config)):
            randomness = settings.get("randomness") or {}
            if randomness.get("seed") is None:  # mmengine drew one, and restores it after building the data loaders
                settings.randomness = {**randomness, "seed": read_meta(latest).get("seed")}
        _check_length(before, config, work_dir, latest)
        check_same_settings(before, config, RUN_SETTINGS, f"{work_dir} holds a run with")
        config.load_from = str(latest)
        config.resume = True
    elif config.get("load_from"):
        config.load_from = checkpoint_to_load(config.load_from)
    place_curves(config, work_dir, latest)
    runner = build_runner(config, work_dir, launcher)
    try:
        with naming_missing_data(datasets_of(config, "train_dataloader", "val_dataloader")):
            runner.train()
    finally:
        for hook in runner.hooks:
            if isinstance(hook, ProgressHook):
                hook.stop()
    barrier()  # rank 0 writes the checkpoint
    final = agreed(Run(work_dir).latest)
    if final is None:
        raise ValueError(f"training left no checkpoint in {work_dir}; does default_hooks.checkpoint save any?")
    return final


def beyond(config: Config, latest: Path, work_dir: Path) -> str:
    """How to train on from the end of a run, for messages."""
    entry, _ = planned(config)
    return (
        f"to train on from its weights, start another run: ean train {command_name(config)} "
        f"--work-dir {work_dir}_longer --cfg-options load_from={latest} {entry}=N"
    )


def planned(config: Config | Mapping[str, Any]) -> tuple[str, int | None]:
    """Return the entry that sets the length of a training, and its value."""
    settings = config.get("train_cfg") or {}
    unit = "max_iters" if "max_iters" in settings else "max_epochs"
    return f"train_cfg.{unit}", settings.get(unit)


def _check_length(before: Config | None, now: Config, work_dir: Path, latest: Path) -> None:
    """Refuse another length for a run whose schedule depends on it."""
    if before is None or planned(before) == planned(now):
        return
    schedules = (json.dumps(each.get("param_scheduler"), default=str, sort_keys=True) for each in (before, now))
    if len(set(schedules)) == 1:
        return
    entry, length = planned(before)
    raise ValueError(
        f"{work_dir} holds a run that was planned for {entry}={length}, here {planned(now)[1]}, and its schedule "
        f"depends on that. --cfg-options {entry}={length} continues it as planned; {beyond(now, latest, work_dir)}"
    )

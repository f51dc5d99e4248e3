"""Train and test the network of a config."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ean_core.backbone import find_backbone
from ean_core.common.config import config_name
from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import write_record
from ean_core.weights.files import WeightsFile
from ean_core.weights.loading import load_weights

from .curves import place_curves
from .folder import RUN_SETTINGS, TEST, Run, check_same_network, check_same_settings, trained_config
from .hooks import ProgressHook
from .processes import agreed, initialize_processes, locked


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
    """Train the network of a config.

    Args:
        config: a config with ``train_cfg``.
        work_dir: folder for logs, checkpoints and ``record.json``.
        resume: continue after the last finished epoch, if there is one.
        launcher: how the processes were started.

    Returns:
        The checkpoint of the last epoch.

    Raises:
        FileExistsError: if ``work_dir`` holds a run and ``resume`` is not set.
        InUseError: if another process is training in it.
        ValueError: if the run in ``work_dir`` has a different network, data, optimization or seed.
        DivergedError: if a loss or weight is NaN or infinite.
    """
    initialize_processes(config, launcher)
    with locked(work_dir):
        return _train(config, work_dir, resume, launcher)


def run_test(config: Config, checkpoint: Path, work_dir: Path, launcher: str = "none") -> dict[str, float]:
    """Evaluate a checkpoint on the test images of a config, once, and write ``test.json``.

    Returns:
        Metrics by name; for classifiers, accuracies in percent: ``accuracy/top1`` and, with many classes,
        ``accuracy/top5``.

    Raises:
        ValueError: if the checkpoint does not belong to the config's network.
    """
    file = WeightsFile(checkpoint)
    check_same_network(file, config)
    config.load_from = None
    config.resume = False
    runner = build_runner(config, work_dir, launcher)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_weights(model, file, strict=True)
    metrics = {name: float(value) for name, value in runner.test().items()}
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
        )
    return metrics


def _train(config: Config, work_dir: Path, resume: bool, launcher: str) -> Path:
    latest = agreed(Run(work_dir).latest)
    if latest and not resume:
        raise FileExistsError(
            f"{work_dir} holds a run up to {latest.name}; add --resume to continue it, or --work-dir to start elsewhere"
        )
    if latest:
        check_same_settings(trained_config(latest), config, RUN_SETTINGS, f"{work_dir} holds a run with")
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
    barrier()  # rank 0 writes the checkpoint
    final = agreed(Run(work_dir).latest)
    if final is None:
        raise ValueError(f"training left no checkpoint in {work_dir}; does default_hooks.checkpoint save every epoch?")
    return final

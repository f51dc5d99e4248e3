"""Hooks of every run: plain checkpoints, records, finite weights, exact resumption."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

from ean_core.common.config import config_name
from ean_core.common.errors import DivergedError
from ean_core.common.record import write_record
from ean_core.common.seeding import Stream, seed_of
from ean_core.common.tasks import Metric, find_metric, headline

from .folder import RECORD, Run


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keep only tensors and plain values in a checkpoint, so that ``torch.load(weights_only=True)`` can read it.

    Histories of logged scalars are emptied (smoothing windows, refilled within an iteration or two). Functions in
    scheduler states are dropped, since each scheduler creates its own.
    """

    priority = "LOWEST"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        hub = checkpoint["message_hub"]
        hub["log_scalars"] = {}
        hub["resumed_keys"] = {key: kept for key, kept in hub["resumed_keys"].items() if key in hub["runtime_info"]}
        for part in ("message_hub", "meta", "param_schedulers"):
            if part in checkpoint:
                checkpoint[part] = _plain(checkpoint[part])


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Time the epochs, log training throughput, and write ``record.json`` at the end of training.

    On resume, earlier epochs and validations are restored from the checkpoint. A training that counts iterations is
    timed as a whole, without its validations; its record has ``iterations``, and None for ``epochs``.
    """

    KEY, VALIDATIONS = "epoch_seconds", "epoch_validations"

    def before_train(self, runner: Runner) -> None:
        self._trained = False
        self._since: float | None = None  # when the iterations since the last validation began

    def before_train_epoch(self, runner: Runner) -> None:
        self._start = time.perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._since is None:  # not earlier: a resumed run first skips the images that it has seen
            self._since, self._before = time.perf_counter(), sum(self._epochs(runner))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if by_iterations(runner):
            self._trained = True
            assert self._since is not None
            runner.message_hub.update_info(self.KEY, [self._before + time.perf_counter() - self._since])

    def before_val_epoch(self, runner: Runner) -> None:
        self._since = None

    def after_train_epoch(self, runner: Runner) -> None:
        if by_iterations(runner):
            return
        self._trained = True
        seconds = time.perf_counter() - self._start
        runner.message_hub.update_info(self.KEY, [*self._epochs(runner), seconds])
        images = len(runner.train_dataloader.dataset)
        runner.logger.info(f"epoch {runner.epoch + 1}/{runner.max_epochs}: {images / seconds:.0f} images/s")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        unit, now = ("iteration", runner.iter) if by_iterations(runner) else ("epoch", runner.epoch)
        measured = {unit: now, **scalars(metrics)}
        earlier = [one for one in self._validations(runner) if one.get(unit) != now]
        runner.message_hub.update_info(self.VALIDATIONS, [*earlier, measured])

    @master_only
    def after_train(self, runner: Runner) -> None:
        run = Run(Path(runner.work_dir))
        if not self._trained and run.finished:
            return  # resumed after its end: the record exists
        seconds = self._epochs(runner)
        images = len(runner.train_dataloader.dataset)
        length: dict[str, Any] = {"epochs": runner.epoch}
        rate = images / statistics.median(seconds) if seconds else None
        if by_iterations(runner):
            length = {"epochs": None, "iterations": runner.iter}
            batch = getattr(runner.train_dataloader.batch_sampler, "batch_size", None)
            rate = runner.iter * batch * runner.world_size / sum(seconds) if batch and seconds else None
        write_record(
            run.path(RECORD),
            kind="training",
            config=config_name(runner.cfg),
            seed=runner.seed,
            world_size=runner.world_size,
            **length,
            images=images,
            seconds=sum(seconds),
            images_per_second=rate,
            **self._selection(runner),
            settings=runner.cfg.to_dict(),
        )

    def _epochs(self, runner: Runner) -> list[float]:
        return list(runner.message_hub.runtime_info.get(self.KEY, []))

    def _validations(self, runner: Runner) -> list[dict[str, float]]:
        return list(runner.message_hub.runtime_info.get(self.VALIDATIONS, []))

    def _selection(self, runner: Runner) -> dict[str, Any]:
        """Return the last validation, all validations, and the best checkpoint if one was selected."""
        validations = self._validations(runner)
        units = ("epoch", "iteration")
        last = {name: value for name, value in validations[-1].items() if name not in units} if validations else None
        best = runner.message_hub.runtime_info.get("best_ckpt")
        number = Path(str(best)).stem.rpartition("_")[2]
        if not number.isdecimal():  # none was selected, or a checkpoint that was resumed names another file
            return {"validation": last, "validations": validations}
        unit = "iteration" if by_iterations(runner) else "epoch"
        chosen = {"checkpoint": Path(str(best)).name, unit: int(number)}
        return {"validation": last, "validations": validations, "best": chosen}


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stop training on a non-finite loss or weight, before saving a checkpoint.

    Args:
        interval: iterations between checks of losses on a GPU, each of which synchronizes with it; on a CPU every
            loss is checked. Weights are checked before each checkpoint.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._good: torch.Tensor | None = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        loss = (outputs or {}).get("loss")
        if not isinstance(loss, torch.Tensor) or hasattr(runner.optim_wrapper, "loss_scaler"):
            return  # an fp16 loss scaler skips steps that overflow
        good = loss.detach().isfinite().all()
        self._good = good if self._good is None else self._good & good
        if loss.device.type == "cpu" or (runner.iter + 1) % self.interval == 0:
            self._check(runner, "the loss", runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        self._check(runner, "the loss", runner.iter)
        self._check_weights(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        self._check_weights(runner)

    def _check_weights(self, runner: Runner) -> None:
        floats = [value for value in runner.model.state_dict().values() if value.is_floating_point()]
        self._good = torch.stack([value.isfinite().all() for value in floats]).all() if floats else None
        self._check(runner, "a weight", runner.iter)

    def _check(self, runner: Runner, what: str, iteration: int) -> None:
        good, self._good = self._good, None
        if good is None or good.item():
            return
        last = Run(Path(runner.work_dir)).latest
        kept = f"Continue from {last} with load_from={last}" if last else "Start again"
        raise DivergedError(
            f"{what} is NaN or infinite in epoch {runner.epoch + 1}, iteration {iteration}: training "
            f"stops here. {kept}, in another --work-dir, with a lower optim_wrapper.optimizer.lr or with "
            "optim_wrapper.clip_grad.max_norm=5"
        )


@HOOKS.register_module()
class ResumeValidationHook(Hook):
    """Validate at the start of a resumed run.

    A validation runs after the checkpoint of its epoch or iteration is saved, so only the next checkpoint contains its
    results. After a stop in between, they would be missing from the record and from the choice of the best checkpoint.
    """

    priority = "LOWEST"

    def before_train(self, runner: Runner) -> None:
        loop: Any = runner.train_loop
        done, end = (loop.iter, loop.max_iters) if by_iterations(runner) else (loop.epoch, loop.max_epochs)
        validated = done % loop.val_interval == 0 or done == end
        if runner.val_loop is not None and done >= max(1, loop.val_begin) and validated:
            runner.val_loop.run()


@HOOKS.register_module()
class StartValidationHook(Hook):
    """Validate the weights that a training starts from, and warn at its end if they were better.

    The validation is recorded as that of epoch or iteration 0. Its metric is the primary one of the task.
    """

    priority = "LOWEST"

    def before_train(self, runner: Runner) -> None:
        if runner.iter or runner.val_loop is None:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):  # it copied the network before its weights were loaded
                hook.ema_model.module.load_state_dict(hook.src_model.state_dict())
        runner.val_loop.run()

    def after_train(self, runner: Runner) -> None:
        validations = runner.message_hub.runtime_info.get(RunRecordHook.VALIDATIONS, [])
        change = worsening(validations) if len(validations) > 1 else None
        if change:
            runner.logger.warning(
                f"this training made its network worse: {change.metric.label} on validation images was "
                f"{change.metric.measured(change.before)} before it and is {change.metric.measured(change.after)} "
                "after it. Keep the weights that it started from, or train longer, with more images, or with a lower "
                "optim_wrapper.optimizer.lr"
            )


class Worsening(NamedTuple):
    """A metric on validation images that was better before a training than after it."""

    metric: Metric
    before: float
    after: float


def worsening(validations: Sequence[Mapping[str, float]], last: Mapping[str, float] | None = None) -> Worsening | None:
    """Return the change of the primary metric if a training made it worse; None if it did not, or is not known to.

    Args:
        validations: all validations of the training; the first may be of epoch or iteration 0.
        last: the validation of the weights that represent the training; that after its end by default.
    """
    first, last = validations[0], last or validations[-1]
    unit = next((unit for unit in ("epoch", "iteration") if unit in first), "")
    common = {name: value for name, value in last.items() if name in first and name != unit}
    if first.get(unit) != 0 or last.get(unit) == 0 or not common:
        return None
    name, after = headline(common)
    metric = find_metric(name)
    return Worsening(metric, first[name], after) if metric.merit(after) < metric.merit(first[name]) else None


@HOOKS.register_module()
class DropoutSeedHook(Hook):
    """Seed PyTorch before each training iteration by run, iteration and rank, so that dropout in a resumed run is the
    same as in an uninterrupted one."""

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        torch.manual_seed(seed_of(runner.seed, Stream.DROPOUT, runner.iter, runner.rank))


@HOOKS.register_module()
class MetricTableHook(Hook):
    """Set the output path of test metrics with a ``table`` attribute, a file name, to the run's folder."""

    def before_test(self, runner: Runner) -> None:
        for metric in runner.test_evaluator.metrics:
            if hasattr(metric, "table") and metric.csv is None:
                metric.csv = str(Path(runner.work_dir) / metric.table)


def by_iterations(runner: Runner) -> bool:
    """Whether a training counts iterations; mmengine then takes all of it as one epoch."""
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def scalars(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the metrics that are numbers; evaluators of some libraries add tables and texts."""
    kinds = (int, float, np.number, torch.Tensor)
    return {
        name: float(value)
        for name, value in (metrics or {}).items()
        if isinstance(value, kinds) and not (isinstance(value, torch.Tensor) and value.numel() != 1)
    }


def _plain(value: Any) -> Any:
    """Convert NumPy scalars and arrays to Python's and mappings to dicts, and drop functions."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if not callable(item)}
    if isinstance(value, (list, tuple)):
        return type(value)([_plain(item) for item in value])
    return value

"""Hooks of every run: plain checkpoints, records, finite weights, exact resumption, progress file."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

from ean_core.common.config import config_name
from ean_core.common.errors import DivergedError
from ean_core.common.record import significant, write_record, write_text
from ean_core.common.seeding import Stream, seed_of
from ean_core.common.tasks import Metric, find_metric, headline

from .folder import PROGRESS, RECORD, Run


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


@HOOKS.register_module()
class ProgressFileHook(Hook):
    """Keep ``progress.json`` in the run's folder up to date, for ``ean watch``.

    Rank 0 writes it at the start, at most once per ``interval`` during iterations, after each epoch and validation,
    and at the end. A resumed run continues the file from the iteration it resumes at.

    Args:
        interval: seconds between two writes. Losses are read from a GPU only then, so other iterations do not wait.
        points: upper bound on the length of the loss history. When it is reached, neighbors are
            averaged, so each point stands for twice as many iterations.
    """

    priority = "LOW"  # after the hooks that log and record

    def __init__(self, interval: float = 1.0, points: int = 200) -> None:
        self.interval = interval
        self.points = points
        self._path: Path | None = None

    def before_train(self, runner: Runner) -> None:
        self._path = None
        if not is_main_process():
            return
        run, done, loop = Run(Path(runner.work_dir)), runner.iter, runner.train_loop
        try:
            before = run.progress or {}
        except ValueError:  # damaged, or written by another program
            before = {}
        total = getattr(loop, "max_iters", None)
        if total is not None and done >= total and run.finished and before.get("finished"):
            return  # resumed after its end: the files are complete
        by_epoch = not by_iterations(runner)
        self._path = run.path(PROGRESS)
        self._losses: list[tuple[int, torch.Tensor]] = []  # since the last write
        self._pending: list[float] = []  # since the last point of the history
        self._first: tuple[int, float] | None = None  # first iteration since this start, and when it ended
        self._gaps: deque[float] = deque(maxlen=10)
        self._warned = False
        now = time.time()
        self._state: dict[str, Any] = {
            "config": config_name(runner.cfg),
            "finished": False,
            "epoch": runner.epoch if by_epoch else None,
            "epochs": getattr(loop, "max_epochs", None) if by_epoch else None,
            "iteration": done,
            "iterations": total,
            "loss": before.get("loss") if done else None,
            "learning_rate": None,
            "images_per_second": None,
            "seconds_left": None,
            "first_start": before.get("first_start", now),
            "start": now,
            "starts": before.get("starts", 0) + 1,
            "updated": now,
            "usual_interval": None,
            "validations": self._earlier_validations(runner, before),
            "loss_interval": before.get("loss_interval", 1) if done else 1,
            "losses": [point for point in before.get("losses", []) if point[0] <= done],
        }
        self._restart_clock()
        self._write(runner)

    def _earlier_validations(self, runner: Runner, before: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the validations up to where training resumes; those in the checkpoint if the file has none."""
        if "validations" in before:
            return [one for one in before["validations"] if one["iteration"] <= runner.iter]
        length = runner.iter // runner.epoch if runner.epoch else 0
        recorded = runner.message_hub.runtime_info.get(RunRecordHook.VALIDATIONS, [])
        return [{"iteration": length * one.get("epoch", 0), **one} for one in recorded]

    def before_train_epoch(self, runner: Runner) -> None:
        self._restart_clock()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._path is not None and self._first is None and self._state["epoch"] is None:
            self._restart_clock()  # a resumed run has skipped the images that it has seen

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        if self._path is None:
            return
        iteration = runner.iter + 1
        self._state["iteration"] = iteration
        if self._state["epoch"] is not None:
            self._state["epoch"] = runner.epoch + 1
        inputs = data_batch.get("inputs") if isinstance(data_batch, Mapping) else None
        self._images += 0 if inputs is None else len(inputs) * runner.world_size
        loss = (outputs or {}).get("loss")
        if isinstance(loss, torch.Tensor):
            self._losses.append((iteration, loss.detach()))
        if self._first is None:
            self._first = iteration, time.perf_counter()
        self._write_if_due(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._write(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self._images = 0  # keep the throughput of the training before it

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._write_if_due(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self._path is None:
            return
        measured: dict[str, float] = {"iteration": runner.iter}
        if self._state["epoch"] is not None:
            measured["epoch"] = runner.epoch
        measured |= scalars(metrics)
        earlier = [one for one in self._state["validations"] if one["iteration"] != runner.iter]
        self._state["validations"] = [*earlier, measured]
        self._write(runner)
        self._restart_clock()

    def after_train(self, runner: Runner) -> None:
        if self._path is not None:
            self._state["finished"] = True
            self._write(runner)

    def _restart_clock(self) -> None:
        """Measure images per second from now on."""
        self._images, self._since = 0, time.perf_counter()

    def _write_if_due(self, runner: Runner) -> None:
        if self._path is not None and time.time() - self._state["updated"] >= self.interval:
            self._write(runner)

    def _write(self, runner: Runner) -> None:
        if self._path is None:
            return
        state, now, clock = self._state, time.time(), time.perf_counter()
        self._take_losses()
        state["learning_rate"] = next(iter(runner.optim_wrapper.get_lr().values()))[0]
        if self._images:
            state["images_per_second"] = significant(self._images / (clock - self._since))
        done = state["iteration"] - self._first[0] if self._first else 0
        if self._first and done and state["iterations"] is not None:
            pace = (clock - self._first[1]) / done  # validations and checkpoints included
            state["seconds_left"] = significant(pace * (state["iterations"] - state["iteration"]))
        if self._first:
            self._gaps.append(now - state["updated"])
            state["usual_interval"] = significant(statistics.fmean(self._gaps))
        state["updated"] = now
        try:
            write_text(self._path, json.dumps(state) + "\n")
        except OSError as error:  # no reason to stop training; checkpoints will fail too if it persists
            if not self._warned:
                runner.logger.warning(f"{error}; training continues, but `ean watch` will not show it")
            self._warned = True

    def _take_losses(self) -> None:
        """Move the losses since the last write into the history."""
        if not self._losses:
            return
        taken = zip(self._losses, torch.stack([loss for _, loss in self._losses]).tolist(), strict=True)
        finite = [(iteration, value) for (iteration, _), value in taken if math.isfinite(value)]
        self._losses = []
        state, history = self._state, self._state["losses"]
        if finite:
            state["loss"] = significant(statistics.fmean(value for _, value in finite))
        for iteration, value in finite:
            self._pending.append(value)
            if iteration - (history[-1][0] if history else 0) >= state["loss_interval"]:
                history.append([iteration, significant(statistics.fmean(self._pending))])
                self._pending = []
            if len(history) >= self.points:
                last = history[len(history) // 2 * 2 :]  # without a neighbor
                pairs = zip(history[::2], history[1::2], strict=False)
                history[:] = [[step, significant((one + other) / 2)] for (_, one), (step, other) in pairs] + last
                state["loss_interval"] *= 2


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

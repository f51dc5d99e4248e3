"""Hooks of every run: plain checkpoints, records, finite weights, exact resumption, a progress bar."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ean_core.common.config import config_name
from ean_core.common.errors import DivergedError
from ean_core.common.progress import Progress
from ean_core.common.record import write_record
from ean_core.common.seeding import Stream, seed_of

from .folder import RECORD, Run


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Leaves only tensors and plain values in a checkpoint, so that ``torch.load(weights_only=True)`` resumes it.

    Emptied are the histories of logged scalars (smoothing windows, refilled within an iteration or two); functions in
    scheduler states are dropped, for a scheduler makes its own.
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
    """Times the epochs, logs training throughput, and writes ``record.json`` at the end of training.

    What was before a resume comes out of the checkpoint.
    """

    KEY, VALIDATIONS = "epoch_seconds", "epoch_validations"

    def before_train(self, runner: Runner) -> None:
        self._trained = False

    def before_train_epoch(self, runner: Runner) -> None:
        self._start = time.perf_counter()

    def after_train_epoch(self, runner: Runner) -> None:
        self._trained = True
        seconds = time.perf_counter() - self._start
        runner.message_hub.update_info(self.KEY, [*self._epochs(runner), seconds])
        images = len(runner.train_dataloader.dataset)
        runner.logger.info(f"epoch {runner.epoch + 1}/{runner.max_epochs}: {images / seconds:.0f} images/s")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        measured = {"epoch": runner.epoch, **{name: float(value) for name, value in (metrics or {}).items()}}
        earlier = [one for one in self._validations(runner) if one["epoch"] != runner.epoch]
        runner.message_hub.update_info(self.VALIDATIONS, [*earlier, measured])

    @master_only
    def after_train(self, runner: Runner) -> None:
        run = Run(Path(runner.work_dir))
        if not self._trained and run.finished:
            return  # resumed after its end: the record is there
        seconds = self._epochs(runner)
        images = len(runner.train_dataloader.dataset)
        write_record(
            run.path(RECORD),
            kind="training",
            config=config_name(runner.cfg),
            seed=runner.seed,
            world_size=runner.world_size,
            epochs=runner.epoch,
            images=images,
            seconds=sum(seconds),
            images_per_second=images / statistics.median(seconds),
            **self._selection(runner),
            settings=runner.cfg.to_dict(),
        )

    def _epochs(self, runner: Runner) -> list[float]:
        return list(runner.message_hub.runtime_info.get(self.KEY, []))

    def _validations(self, runner: Runner) -> list[dict[str, float]]:
        return list(runner.message_hub.runtime_info.get(self.VALIDATIONS, []))

    def _selection(self, runner: Runner) -> dict[str, Any]:
        """The last validation, all of them, and the checkpoint that was best, where one was selected."""
        validations = self._validations(runner)
        last = {name: value for name, value in validations[-1].items() if name != "epoch"} if validations else None
        best = runner.message_hub.runtime_info.get("best_ckpt")
        if best is None:
            return {"validation": last, "validations": validations}
        epoch = int(Path(best).stem.rpartition("_")[2])
        return {"validation": last, "validations": validations, "best": {"checkpoint": Path(best).name, "epoch": epoch}}


@HOOKS.register_module()
class FiniteHook(Hook):
    """Ends a training whose loss or weights are no numbers any more, before they get into a checkpoint.

    Args:
        interval: iterations after which losses on a GPU are looked at, which waits for it; on a CPU each one is.
            Weights are looked at before each checkpoint.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._good: torch.Tensor | None = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        loss = (outputs or {}).get("loss")
        if not isinstance(loss, torch.Tensor) or hasattr(runner.optim_wrapper, "loss_scaler"):
            return  # a scaler for fp16 skips steps that overflow
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
        kept = f"{last} is from before; go on from it with load_from={last}" if last else "start again"
        raise DivergedError(
            f"{what} is no finite number any more in epoch {runner.epoch + 1}, iteration {iteration}: training "
            f"ends here. {kept}, in another --work-dir, with a lower optim_wrapper.optimizer.lr or with "
            "optim_wrapper.clip_grad.max_norm=5"
        )


@HOOKS.register_module()
class ResumeValidationHook(Hook):
    """Validates where a resumed run begins: a validation comes after its epoch's checkpoint, and what it found is in
    the next one only. Without it a stop in between would leave a hole in the record, and the best checkpoint would be
    chosen among others than in a run that was not stopped."""

    priority = "LOWEST"

    def before_train(self, runner: Runner) -> None:
        loop: Any = runner.train_loop
        validated = loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs
        if runner.val_loop is not None and loop.epoch >= max(1, loop.val_begin) and validated:
            runner.val_loop.run()


@HOOKS.register_module()
class DropoutSeedHook(Hook):
    """Seeds PyTorch before each training iteration by run, iteration and rank, so that a resumed run drops what one
    that was not stopped dropped."""

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        torch.manual_seed(seed_of(runner.seed, Stream.DROPOUT, runner.iter, runner.rank))


@HOOKS.register_module()
class MetricTableHook(Hook):
    """Has the metrics of a test that write a table, whose name is their ``table``, write it into the run's folder."""

    def before_test(self, runner: Runner) -> None:
        for metric in runner.test_evaluator.metrics:
            if hasattr(metric, "table") and metric.csv is None:
                metric.csv = str(Path(runner.work_dir) / metric.table)


@HOOKS.register_module()
class ProgressHook(Hook):
    """On a terminal, shows a bar in place of log lines, which still go to the log file.

    Args:
        always: count iterations also where there is no terminal, for runs whose log lines are turned off.
    """

    priority = "LOW"

    def __init__(self, always: bool = False) -> None:
        self.always = always
        self._progress: Progress | None = None

    @master_only
    def before_train(self, runner: Runner) -> None:
        self._begin(runner, Path(runner.work_dir).name, runner.max_iters, runner.iter)

    @master_only
    def before_test(self, runner: Runner) -> None:
        self._begin(runner, "test", len(runner.test_dataloader))

    def before_train_epoch(self, runner: Runner) -> None:
        self._start = time.perf_counter()
        self._images = 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._progress:
            self._images += len(data_batch["inputs"]) * runner.world_size
            rate = self._images / (time.perf_counter() - self._start)
            loss = f"loss {outputs['loss'].item():.3f}" if outputs and "loss" in outputs else ""
            self._progress.advance(f"epoch {runner.epoch + 1}/{runner.max_epochs}, {rate:.0f} images/s, {loss}")

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._progress:
            self._progress.advance()

    def after_train(self, runner: Runner) -> None:
        self.stop()

    def after_test(self, runner: Runner) -> None:
        self.stop()

    def stop(self) -> None:
        """Give the terminal back; also after an interruption."""
        if self._progress:
            self._progress.__exit__(None, None, None)
            self._progress = None

    def _begin(self, runner: Runner, name: str, total: int, done: int = 0) -> None:
        if not self.always and not sys.stdout.isatty():
            return
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(max(handler.level, logging.WARNING))
        self._progress = Progress(name, total, done).__enter__()


def _plain(value: Any) -> Any:
    """The value with NumPy scalars and arrays as Python's, mappings as dicts, and without functions."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if not callable(item)}
    if isinstance(value, (list, tuple)):
        return type(value)([_plain(item) for item in value])
    return value

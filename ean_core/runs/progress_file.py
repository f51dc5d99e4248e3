"""``progress.json``: training progress, for ``ean watch``."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ean_core.common.config import config_name
from ean_core.common.record import significant, write_text

from .folder import PROGRESS, Run
from .hooks import RunRecordHook, by_iterations, scalars


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

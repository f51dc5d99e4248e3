"""Output of a run on the terminal: a header, its progress, and of mmengine's log what its users need."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from ean_core.backbone import EANResNet
from ean_core.common.config import config_name
from ean_core.common.output import Output, chosen
from ean_core.common.progress import Progress, duration
from ean_core.common.tasks import dataset_of, find_metric, headline
from ean_core.common.text import number_of, visible

from .hooks import by_iterations, scalars

#: Modules of mmengine whose warnings are about the user's files; others are about its own interfaces.
TELLING = ("mmengine.runner.checkpoint",)


# ---------------------------------------------------------------- mmengine's log


def restrain(logger: MMLogger | None = None) -> None:
    """Let a logger of mmengine write to the terminal only what the running command is to print; files get everything.

    Args:
        logger: the logger; the current one by default.
    """
    for handler in (logger or MMLogger.get_current_instance()).handlers:
        if type(handler) is logging.StreamHandler and not isinstance(handler.stream, _Terminal):
            handler.addFilter(_Restraint(handler.level))
            handler.setLevel(logging.DEBUG)
            handler.stream = _Terminal()


class _Terminal:
    """The standard output of the moment; a progress bar redirects it, to show other output above itself."""

    def write(self, text: str) -> None:
        sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


class _Restraint(logging.Filter):
    """Select the records that reach the terminal.

    With ``--verbose`` these are mmengine's, and our own down to debug level; otherwise warnings and errors, without
    warnings about mmengine's own interfaces; with ``--quiet`` errors. Only rank 0 prints anything but errors.

    Args:
        level: level of the records that a config sends to the terminal.
    """

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def filter(self, record: logging.LogRecord) -> bool:
        output = chosen()
        if record.levelno >= logging.ERROR or output is None:
            return record.levelno >= self.level
        if output is Output.quiet or not is_main_process():
            return False
        if output is Output.verbose:
            return record.levelno >= self.level or not _origin().startswith("mmengine.")
        if record.levelno < max(self.level, logging.WARNING):
            return False
        origin = _origin()
        return origin in TELLING or not origin.startswith("mmengine.")


def _origin() -> str:
    """Name of the module that wrote the current record; the record itself names mmengine's function ``print_log``."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and not name.startswith(("logging", "mmengine.logging")):
            return name
        frame = frame.f_back
    return ""


# ---------------------------------------------------------------- header


def announce(verb: str, config: Config, network: nn.Module, data: str, folder: Path, *more: str) -> None:
    """Print what a command is about to do, in four lines and those of ``more``; nothing if quiet, or in scripts.

    Args:
        verb: what is done, such as ``'train'``.
        config: config of the network.
        network: the network, on its device.
        data: the images, by :func:`data_text`.
        folder: output folder.
        more: further lines.
    """
    if chosen() not in (Output.short, Output.verbose) or not is_main_process():
        return
    lines = [
        f"{verb} {config_name(config) or 'a config'}: {_network_text(network, config)}",
        f"data: {data}",
        f"device: {_device_text(network, config)}",
        *more,
        f"output: {folder}",
    ]
    print("\n".join(map(visible, lines)), flush=True)


def data_text(loader: Mapping[str, Any], dataset: Any) -> str:
    """Describe the images of a data loader.

    Args:
        loader: its settings.
        dataset: its data set.
    """
    settings = loader["dataset"]
    known = dataset_of(settings)
    name = known.title if known else str(settings.get("type"))
    split = f" {settings['split']}" if isinstance(settings.get("split"), str) else ""
    place = getattr(dataset, "folder", None) or settings.get("data_root") or settings.get("root")
    return f"{name}{split}, {number_of(len(dataset), 'image')}" + (f" in {place}" if place else "")


def _network_text(network: nn.Module, config: Config) -> str:
    parameters = f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters"
    backbone = next((module for module in network.modules() if isinstance(module, EANResNet)), None)
    if backbone is None:
        return f"{type(network).__name__}, {parameters}"
    attention = f" {backbone.attention_cfg['type']}" if backbone.scheme.gates else ""
    random = "scheme" in (config.get("default_hooks") or {})  # of a supernet
    scheme = "a random scheme in every iteration" if random else f"scheme {backbone.scheme}"
    if config.get("search"):
        scheme = f"a supernet of {sum(backbone.scheme.stages)} blocks"
    return f"ResNet-{backbone.depth}{attention}, {scheme}, {parameters}"


def _device_text(network: nn.Module, config: Config) -> str:
    device, processes = next(network.parameters()).device, get_world_size()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU, {torch.get_num_threads()} threads" if torch.get_num_threads() > 1 else "CPU, 1 thread"
    kind = str((config.get("optim_wrapper") or {}).get("type", ""))
    precision = {"Bf16OptimWrapper": ", bf16", "AmpOptimWrapper": ", mixed precision"}.get(kind, "")
    return f"{f'{processes} processes, each ' if processes > 1 else ''}{name}{precision}"


def started_from(config: Config | Mapping[str, Any]) -> str | None:
    """Return the weights of the whole network that a training started from; None if it had none."""
    initial = (config.get("model") or {}).get("init_cfg") or {}
    return config.get("load_from") or (initial.get("checkpoint") if isinstance(initial, Mapping) else None)


# ---------------------------------------------------------------- progress


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show the progress of a run: of a training, a header and a line per epoch with its loss and validation, and on a
    terminal a bar. A training that counts iterations has a line per hundredth of them, and per validation.

    Nothing is shown by commands that run with ``--quiet``, nor with ``--verbose``, where mmengine's own lines appear.
    Outside of commands, a bar replaces mmengine's lines on a terminal.
    """

    priority = "LOW"

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._says = False
        self._pending: tuple[str, list[str]] | None = None  # line of an epoch that may have a validation yet
        self._images = 0  # of this epoch; a resumed run may validate before the first one

    @master_only
    def before_train(self, runner: Runner) -> None:
        self._says = chosen() is Output.short
        self._pending = None
        self._first: tuple[int, float] | None = None  # iteration and time at which this start began to train
        self._losses: list[torch.Tensor] = []
        self._done, self._total = runner.iter, runner.max_iters
        announce(
            "train",
            runner.cfg,
            runner.model,
            self._data_text(runner),
            Path(runner.cfg.get("work_dir") or runner.work_dir),  # as it was given, not absolute
            *self._start_text(runner),
        )
        self._begin(runner, Path(runner.work_dir).name, self._total, self._done)

    @master_only
    def before_test(self, runner: Runner) -> None:
        self._begin(runner, "test", len(runner.test_dataloader))

    def before_train_epoch(self, runner: Runner) -> None:
        self._start = time.perf_counter()
        self._images = 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if not self._images:  # a resumed run may have skipped the images that it has seen
            self._start = time.perf_counter() if by_iterations(runner) else self._start
        if self._says:
            self._say()
            self._first = self._first or (runner.iter, time.perf_counter())

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if not self._progress and not self._says:
            return
        inputs = data_batch.get("inputs") if isinstance(data_batch, Mapping) else None
        self._images += 0 if inputs is None else len(inputs) * runner.world_size
        loss = (outputs or {}).get("loss")
        if self._says:
            self._done = runner.iter + 1
            self._losses += [loss.detach()] if isinstance(loss, torch.Tensor) else []
            if by_iterations(runner) and self._done % max(1, self._total // 100) == 0:
                self._pend(f"iteration {self._done}/{self._total}")
        if self._progress:
            shown = f"loss {loss.item():.3f}" if isinstance(loss, torch.Tensor) else ""
            epoch = "" if by_iterations(runner) else f"epoch {runner.epoch + 1}/{runner.max_epochs}, "
            self._progress.advance(f"{epoch}{self._rate():.0f} images/s, {shown}")

    def after_train_epoch(self, runner: Runner) -> None:
        if self._says and not by_iterations(runner):
            self._pend(f"epoch {runner.epoch + 1}/{runner.max_epochs}")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if not self._says:
            return
        measured = scalars(metrics)
        if self._pending is None:
            unit, now, end = "epoch", runner.epoch, runner.max_epochs
            if by_iterations(runner):
                unit, now, end = "iteration", runner.iter, runner.max_iters
            self._pend(f"{unit} {now}/{end}" if now else "before training")
        if measured and self._pending:
            name, value = headline(measured)
            self._pending[1].insert(0, find_metric(name).text(value))
        self._say()

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._progress:
            self._progress.advance()

    def after_train(self, runner: Runner) -> None:
        self.stop()

    def after_test(self, runner: Runner) -> None:
        self.stop()

    def stop(self) -> None:
        """Release the terminal; also after an interruption."""
        self._say()
        if self._progress:
            self._progress.__exit__(None, None, None)
            self._progress = None

    def _begin(self, runner: Runner, name: str, total: int, done: int = 0) -> None:
        output = chosen()
        bar = sys.stdout.isatty() and output in (None, Output.progress, Output.short)
        lines = output is Output.progress or (output is Output.short and not self._says)  # the latter of a test
        if not (bar or lines):
            return
        for handler in runner.logger.handlers if output is None else ():
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setLevel(max(handler.level, logging.WARNING))
        self._progress = Progress(name, total, done).__enter__()

    def _rate(self) -> float:
        """Images per second in this epoch."""
        return self._images / (time.perf_counter() - self._start)

    def _pend(self, position: str) -> None:
        """Prepare the line of an epoch, or of some iterations, which a validation may follow."""
        parts = [f"loss {torch.stack(self._losses).mean().item():.4f}"] if self._losses else []
        parts += [f"{self._rate():.0f} images/s"] if self._done and self._images else []
        self._losses = []
        self._pending = position, parts

    def _say(self) -> None:
        """Print the prepared line, if there is one, with the time that is left."""
        if self._pending is None:
            return
        (position, parts), self._pending = self._pending, None
        if self._first and self._first[0] < self._done < self._total:
            pace = (time.perf_counter() - self._first[1]) / (self._done - self._first[0])
            parts = [*parts, f"{duration(pace * (self._total - self._done))} left"]
        print(f"{position}: {', '.join(parts)}" if parts else position, flush=True)

    def _data_text(self, runner: Runner) -> str:
        training = data_text(runner.cfg.train_dataloader, runner.train_dataloader.dataset)
        number, unit = (self._total, "iteration") if by_iterations(runner) else (runner.max_epochs, "epoch")
        length = number_of(number, unit)
        validated = f"; validation on {len(runner.val_dataloader.dataset):,}" if runner.val_loop else ""
        return f"{training}, {length}{validated}"

    def _start_text(self, runner: Runner) -> list[str]:
        """Where training starts, if not from the beginning."""
        if runner.iter:
            done = f"iteration {runner.iter:,}" if by_iterations(runner) else f"epoch {runner.epoch}"
            return [f"resumed: after {done}"]
        weights = started_from(runner.cfg)
        return [f"weights: {weights}"] if weights else []

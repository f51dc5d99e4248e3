"""mmengine's Runner with safe writes, and bf16 autocast on any device."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, RUNNERS
from mmengine.runner import BaseLoop, Runner
from mmengine.runner import runner as mmengine_runner
from torch import nn

from ean_core.common.places import SCHEME
from ean_core.common.writing import refuse_link, remove_link, replacing
from ean_core.weights.files import refuse_expanding, weights_only
from ean_core.weights.loading import load_weights
from ean_core.weights.names import are_current

from .folder import START_SETTINGS, Run
from .terminal import restrain


@RUNNERS.register_module()
class EANRunner(Runner):
    """mmengine's Runner with atomic checkpoint writes, and writes that follow no link out of the run's folder."""

    #: Whether a training is about to take its first step: its settings were accepted, and its weights loaded.
    _begins = False

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """As in mmengine, which names the folder of a start's logs after the second of the start.

        A run that starts within the same second as an earlier one, such as a test right after a short training, waits
        for the next second, so that it does not write over the other's logs and settings.
        """
        while is_main_process() and (Path(self.work_dir) / time.strftime("%Y%m%d_%H%M%S") / START_SETTINGS).exists():
            time.sleep(0.05)
        super().setup_env(env_cfg)

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """As in mmengine, but through a temporary file: a file with the final name is always complete."""
        with replacing(Path(out_dir) / filename) as partial:
            super().save_checkpoint(out_dir, partial.name, *args, **kwargs)
        remove_link(Path(self.work_dir) / "last_checkpoint")  # which mmengine's CheckpointHook writes next

    @master_only
    def dump_config(self) -> None:
        """As in mmengine, but a link of the file's name is replaced.

        The config of a training in this folder stays until the next one begins: neither a test nor a start that is
        refused changes it.
        """
        if not self._begins and Run(Path(self.work_dir)).is_training:
            return
        remove_link(
            Path(self.work_dir) / (Path(self.cfg.filename).name if self.cfg.filename else f"{self.timestamp}.py")
        )
        super().dump_config()

    def load_or_resume(self) -> None:
        """As in mmengine; then the config of a training is written."""
        super().load_or_resume()
        if isinstance(self._train_loop, BaseLoop):
            self._begins = True
            self.dump_config()

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """As in mmengine, after a check of the folder of this start, which mmengine and its backends write to.

        Raises:
            LinkError: if it is a link, or holds one.
        """
        folder = Path(self.log_dir)  # named after the second of the start
        for path in (folder, *folder.rglob("*")):
            refuse_link(path)
        logger = super().build_logger(*args, **kwargs)
        restrain(logger)
        return logger

    def _build_param_scheduler(self, scheduler: Any, optim_wrapper: OptimWrapper) -> list[Any]:
        """As in mmengine, but a OneCycleLR of so few iterations that it rises in one begins at its top.

        mmengine divides by zero there.
        """
        built: list[Any] = []
        for each in scheduler if isinstance(scheduler, Sequence) else [scheduler]:
            try:
                built += super()._build_param_scheduler([each], optim_wrapper)
            except ZeroDivisionError:
                shorter = {**each, "pct_start": 0.999 * each.get("pct_start", 0.3)}
                built += super()._build_param_scheduler([shorter], optim_wrapper)
        return built

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """As in mmengine; published models and safetensors go through :func:`load_weights`, which refuses misfits."""
        if not filename.startswith(SCHEME) and not filename.endswith(".safetensors"):
            refuse_expanding(Path(filename))
            with weights_only(), _logged_loading():
                checkpoint = super().load_checkpoint(filename, *args, **kwargs)
            if not isinstance(checkpoint, dict):
                return checkpoint
            averaged = any(isinstance(hook, EMAHook) for hook in self.hooks)
            if self._resume and "ema_state_dict" in checkpoint and not averaged:
                # Its weights are averages; those that training continues from are in the average's place.
                raise ValueError(
                    f"{filename} is of a run with EMAHook; resume it with the same custom_hooks, or start another run "
                    f"from its averaged weights with load_from={filename}"
                )
            if self._resume and not are_current(checkpoint.get("state_dict", {})):
                # The optimizer's state refers to parameters by their order, which changed with the names.
                raise ValueError(
                    f"{filename} was written by an earlier version of this package, which cannot be resumed; start "
                    f"another run from its weights with load_from={filename}"
                )
            # Runner.resume would execute this text; mmengine itself writes none.
            if isinstance(checkpoint.get("meta"), dict):
                checkpoint["meta"].pop("config", None)
            return checkpoint
        load_weights(self.model.module if is_model_wrapper(self.model) else self.model, filename)
        self._has_loaded = True
        self.logger.info(f"Load checkpoint from {filename}")
        return None


@contextmanager
def _logged_loading() -> Iterator[None]:
    """Let mmengine log which file it reads a checkpoint from; it prints that otherwise, whatever a command's output."""
    load = mmengine_runner._load_checkpoint
    mmengine_runner._load_checkpoint = partial(load, logger="current")
    try:
        yield
    finally:
        mmengine_runner._load_checkpoint = load


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Run forward passes under bf16 autocast, on CPUs and GPUs.

    mmengine's AmpOptimWrapper does not run on CPUs; bf16 needs no loss scaling on either.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield

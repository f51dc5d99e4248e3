"""mmengine's Runner with atomic checkpoint writes, and bf16 autocast on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, RUNNERS
from mmengine.runner import Runner
from torch import nn

from ean_core.common.errors import writing
from ean_core.weights.addresses import SCHEME
from ean_core.weights.files import refuse_compressed, weights_only
from ean_core.weights.loading import load_weights
from ean_core.weights.names import are_current


@RUNNERS.register_module()
class EANRunner(Runner):
    """mmengine's Runner with atomic checkpoint writes."""

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """As in mmengine, but through a temporary file: a file with the final name is always complete."""
        partial, final = Path(out_dir) / f"{filename}.part", Path(out_dir) / filename
        with writing(final):
            try:
                super().save_checkpoint(out_dir, partial.name, *args, **kwargs)
                self._rename(partial, final)
            except OSError:
                partial.unlink(missing_ok=True)
                raise

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """As in mmengine; published models and safetensors go through :func:`load_weights`, which refuses misfits."""
        if not filename.startswith(SCHEME) and not filename.endswith(".safetensors"):
            refuse_compressed(Path(filename))
            with weights_only():
                loaded = super().load_checkpoint(filename, *args, **kwargs)
            averaged = any(isinstance(hook, EMAHook) for hook in self.hooks)
            if self._resume and "ema_state_dict" in loaded and not averaged:
                # Its weights are averages; those that training continues from are in the average's place.
                raise ValueError(
                    f"{filename} is of a run with EMAHook; resume it with the same custom_hooks, or start another run "
                    f"from its averaged weights with load_from={filename}"
                )
            if self._resume and not are_current(loaded.get("state_dict", {})):
                # The optimizer's state refers to parameters by their order, which changed with the names.
                raise ValueError(
                    f"{filename} was written by an earlier version of this package, which cannot be resumed; start "
                    f"another run from its weights with load_from={filename}"
                )
            return loaded
        load_weights(self.model.module if is_model_wrapper(self.model) else self.model, filename)
        self._has_loaded = True
        self.logger.info(f"Load checkpoint from {filename}")
        return None

    @master_only
    def _rename(self, partial: Path, final: Path) -> None:
        partial.replace(final)


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

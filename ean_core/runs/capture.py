"""Training iterations as CUDA graphs: one launch instead of the thousand kernels of a deep, narrow network."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ean_core.backbone import find_backbone
from ean_core.classifier import ImageClassifier

from .supernet import RandomSchemeHook

#: Passes before a batch is recorded: libraries select kernels and allocate workspaces in the first passes.
WARM_UP = 3

#: Runs the passes; returns their losses and a function that replays them, writing to the same memory.
Recorder = Callable[[Callable[[], dict[str, Tensor]]], tuple[dict[str, Tensor], Callable[[], None]]]


@dataclass(frozen=True)
class Recording:
    """A forward and backward pass that ``replay`` repeats on the current contents of ``inputs``.

    Args:
        inputs: tensors of the batch that it reads, by name.
        losses: tensors that it writes the losses to, by name.
        gradients: tensor that it writes the gradient to, for each parameter that has one.
        replay: repeats the passes.
    """

    inputs: Mapping[str, Tensor]
    losses: Mapping[str, Tensor]
    gradients: Mapping[nn.Parameter, Tensor]
    replay: Callable[[], None]


class CapturedStep:
    """Replacement for a model's ``train_step`` with the forward and backward pass recorded once per batch shape.

    Learning rates, momenta, clipping and the optimizer step remain in the optimizer wrapper, outside the recording.

    Args:
        model: a model whose passes depend only on the batch and on the contents of its parameters and buffers.
        recorder: records the passes; as a CUDA graph by default.
        interval: iterations from one returned set of losses to the next, since reading them waits for the GPU.
    """

    def __init__(self, model: BaseModel, recorder: Recorder | None = None, *, interval: int = 10) -> None:
        self.model = model
        self.interval = interval
        self._recorder = recorder or CUDARecorder()
        self._recordings: dict[Any, Recording] = {}
        self._count = 0

    def __call__(self, data: Mapping[str, Tensor], optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """One training iteration.

        Args:
            data: tensors of a batch, by name.
            optim_wrapper: optimizer wrapper of the model.

        Returns:
            The losses by name in the first and every ``interval``-th iteration; an empty dict in the others.
        """
        key = tuple((name, value.shape, value.dtype) for name, value in data.items())
        if key not in self._recordings:
            self._recordings[key] = self._record(data, optim_wrapper)
        recording = self._recordings[key]
        for name, value in data.items():
            recording.inputs[name].copy_(value)
        recording.replay()
        idle = find_backbone(self.model).idle_parameters()
        for parameter, gradient in recording.gradients.items():
            parameter.grad = None if parameter in idle else gradient
        optim_wrapper.step()
        optim_wrapper.zero_grad()
        self._count += 1
        if self._count > 1 and self._count % self.interval:
            return {}
        return {name: value.clone() for name, value in recording.losses.items()}

    def _record(self, data: Mapping[str, Tensor], optim_wrapper: OptimWrapper) -> Recording:
        """Record the passes and restore the model's buffers afterwards."""
        device = next(self.model.parameters()).device
        inputs = {name: value.to(device, copy=True) for name, value in data.items()}

        def passes() -> dict[str, Tensor]:
            optim_wrapper.zero_grad()
            with optim_wrapper.optim_context(self.model):
                losses = self.model(**self.model.data_preprocessor(dict(inputs), True), mode="loss")
            loss, logged = self.model.parse_losses(losses)
            optim_wrapper.scale_loss(loss).backward()
            return {name: value.detach() for name, value in logged.items()}

        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        losses, replay = self._recorder(passes)
        gradients = {p: p.grad for p in self.model.parameters() if p.grad is not None}
        optim_wrapper.zero_grad()
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return Recording(inputs, losses, gradients, replay)


class CUDARecorder:
    """Records CUDA graphs in a shared memory pool, as no graph reads data left by another."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, passes: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], Callable[[], None]]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                passes()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        gc.collect()  # freeing an older graph in a reference cycle would abort the capture
        gc.disable()
        try:
            # thread_local: data loader threads may call CUDA meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                losses = passes()
        finally:
            gc.enable()
        self._pool = graph.pool()
        return losses, graph.replay


@HOOKS.register_module()
class CaptureHook(Hook):
    """Trains with a :class:`CapturedStep`; a supernet's scheme becomes data, so one graph serves all schemes.

    Raises:
        ValueError: without a GPU, with several GPUs, or if the model, activation checkpointing, loss scaling or
            gradient accumulation does not work with CUDA graphs.
    """

    def before_train(self, runner: Runner) -> None:
        model, wrapper = runner.model, runner.optim_wrapper
        if is_model_wrapper(model):
            raise ValueError("--capture works on a single GPU only; omit it in distributed training")
        if not isinstance(model, ImageClassifier):
            raise ValueError(f"--capture works with classifiers only, not with {type(model).__name__}; omit it")
        if hasattr(wrapper, "loss_scaler") or wrapper._accumulative_counts != 1:
            raise ValueError(
                "--capture needs optim_wrapper type OptimWrapper or Bf16OptimWrapper without accumulative_counts, got "
                f"{type(wrapper).__name__} with accumulative_counts={wrapper._accumulative_counts}"
            )
        if find_backbone(model).with_cp:
            raise ValueError("--capture does not work with model.backbone.with_cp=True, which reads random states")
        if any(isinstance(hook, RandomSchemeHook) for hook in runner.hooks):
            find_backbone(model).scheme_as_data()
        model.train_step = self.step(model)

    def after_train(self, runner: Runner) -> None:
        vars(runner.model).pop("train_step", None)
        find_backbone(runner.model).scheme_as_data(False)

    def step(self, model: ImageClassifier) -> CapturedStep:
        """The replacement for the model's ``train_step``.

        Raises:
            ValueError: if the model is not on a GPU.
        """
        device = next(model.parameters()).device
        if device.type != "cuda":
            raise ValueError(f"--capture records iterations as CUDA graphs, but this network trains on {device}")
        return CapturedStep(model)


def use_capture(config: Config) -> None:
    """Implement ``--capture``: add the :class:`CaptureHook` to a config."""
    config.custom_hooks = [*config.get("custom_hooks", []), {"type": "CaptureHook"}]

"""Training iterations as CUDA graphs: one launch in place of the thousand kernels of a deep, narrow network."""

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

#: Passes over a batch before it is recorded: libraries choose kernels and take workspaces in the first ones.
WARM_UP = 3

#: Runs the passes now and then; returns their losses, and what runs them again and writes to the same memory.
Recorder = Callable[[Callable[[], dict[str, Tensor]]], tuple[dict[str, Tensor], Callable[[], None]]]


@dataclass(frozen=True)
class Recording:
    """A forward and a backward pass that ``replay`` runs again on whatever is in ``inputs``.

    Args:
        inputs: by name, the batch that it reads.
        losses: by name, where it writes what it computes.
        gradients: of each parameter that has one, where it writes them.
        replay: runs it.
    """

    inputs: Mapping[str, Tensor]
    losses: Mapping[str, Tensor]
    gradients: Mapping[nn.Parameter, Tensor]
    replay: Callable[[], None]


class CapturedStep:
    """What a model's ``train_step`` does, with forward and backward pass recorded once for each shape of batch.

    Learning rates, momenta, clipping and the step itself stay with the optimizer wrapper, outside of the recording.

    Args:
        model: whose passes depend on nothing that changes but the batch and what its parameters and buffers hold.
        recorder: of a CUDA graph by default.
        interval: iterations between two whose losses are returned, for reading them waits for the GPU.
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
            data: a batch, by name.
            optim_wrapper: of the model.

        Returns:
            The losses, by name, in the first and in each ``interval``-th iteration; nothing in the others.
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
        """Record the passes; what they leave in the model's buffers is undone."""
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
    """Records CUDA graphs that share their memory, for none reads what another one left there."""

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
        gc.collect()  # an older graph in a cycle, freed while this one is recorded, would end it
        gc.disable()
        try:
            # thread_local: the threads of a data loader may call CUDA meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                losses = passes()
        finally:
            gc.enable()
        self._pool = graph.pool()
        return losses, graph.replay


@HOOKS.register_module()
class CaptureHook(Hook):
    """Trains by a :class:`CapturedStep`; a supernet with its scheme as data, so that one graph serves all schemes.

    Raises:
        ValueError: where there is no GPU, or several take part, or the model, its recomputed blocks, the loss scaling
            or the accumulation of gradients is one that graphs do not go with.
    """

    def before_train(self, runner: Runner) -> None:
        model, wrapper = runner.model, runner.optim_wrapper
        if is_model_wrapper(model):
            raise ValueError("--capture trains on one GPU; leave it out where several train together")
        if not isinstance(model, ImageClassifier):
            raise ValueError(f"--capture trains classifiers, this is a {type(model).__name__}; leave it out")
        if hasattr(wrapper, "loss_scaler") or wrapper._accumulative_counts != 1:
            raise ValueError(
                "--capture goes with the optim_wrapper types OptimWrapper and Bf16OptimWrapper without "
                f"accumulative_counts, this is a {type(wrapper).__name__} with {wrapper._accumulative_counts}"
            )
        if find_backbone(model).with_cp:
            raise ValueError("--capture does not go with model.backbone.with_cp=True, whose passes read random states")
        if any(isinstance(hook, RandomSchemeHook) for hook in runner.hooks):
            find_backbone(model).scheme_as_data()
        model.train_step = self.step(model)

    def after_train(self, runner: Runner) -> None:
        vars(runner.model).pop("train_step", None)
        find_backbone(runner.model).scheme_as_data(False)

    def step(self, model: ImageClassifier) -> CapturedStep:
        """What takes the place of the model's ``train_step``.

        Raises:
            ValueError: if the model is not on a GPU.
        """
        device = next(model.parameters()).device
        if device.type != "cuda":
            raise ValueError(f"--capture records iterations as CUDA graphs, and this network trains on a {device}")
        return CapturedStep(model)


def use_capture(config: Config) -> None:
    """What ``--capture`` does."""
    config.custom_hooks = [*config.get("custom_hooks", []), {"type": "CaptureHook"}]

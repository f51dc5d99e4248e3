"""Attention at a glance: how much the gate of each block differs between channels, and between images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ean_core.attention import State
from ean_core.backbone import EANResNet, find_backbone
from ean_core.common.progress import Progress

#: A gate whose spread between images is below this share of its mean answers all images nearly alike.
NEARLY_CONSTANT = 0.05


class GateMoments:
    """Moments of one block's gates, summed in fp64 over batches.

    Channels are those of the gate: ``C`` of SE and DIA, the groups of SGE, whose positions count as so many images.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None
        self._squares: Tensor | None = None

    def add(self, gate: Tensor) -> None:
        """Take in the gates ``(N, C)`` or ``(N, C, H, W)`` of a batch."""
        values = gate.detach().double().flatten(2) if gate.ndim > 2 else gate.detach().double()[:, :, None]
        self.count += values.shape[0] * values.shape[2]
        total, squares = values.sum((0, 2)), values.square().sum((0, 2))  # (C,)
        self._sum = total if self._sum is None else self._sum + total
        self._squares = squares if self._squares is None else self._squares + squares

    def statistics(self) -> GateStatistics:
        """What they come to.

        Raises:
            ValueError: if there was no gate.
        """
        if self._sum is None or self._squares is None:
            raise ValueError("there are no statistics of no gates; the data set is empty")
        means = self._sum / self.count  # (C,)
        variances = (self._squares / self.count - means.square()).clamp(min=0)
        return GateStatistics(
            mean=means.mean().item(),
            between_channels=means.std(unbiased=False).item(),
            between_images=math.sqrt(variances.mean().item()),
        )


@dataclass(frozen=True)
class GateStatistics:
    """How a block's gates are distributed; the squares of the two spreads add up to the variance of all gates.

    Args:
        mean: over images, channels and positions.
        between_channels: standard deviation, over channels, of each channel's mean. It could be folded into weights.
        between_images: root mean square, over channels, of each channel's standard deviation over images, for SGE over
            their positions too. This part looks at the image, and is what attention is for.
    """

    mean: float
    between_channels: float
    between_images: float

    @property
    def nearly_constant(self) -> bool:
        """Whether it answers all images nearly alike."""
        return self.between_images < NEARLY_CONSTANT * self.mean


@contextmanager
def watched_gates(backbone: EANResNet, take: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Hand each gate that a backbone computes to a function, with the number of its block in the scheme.

    Args:
        backbone: whose blocks run one after the other; it is left as it was.
        take: called with the block's number, 0 for the first, and the gate.
    """
    running = -1  # blocks of a stage share a module, which cannot tell them apart

    def enter(number: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal running
            running = number

        return hook

    def wrapped(process: Callable[[Tensor, State], tuple[Tensor, State]]) -> Callable[..., tuple[Tensor, State]]:
        def watched(extracted: Tensor, state: State) -> tuple[Tensor, State]:
            gate, state = process(extracted, state)
            take(running, gate)
            return gate, state

        return watched

    modules = {id(module): module for k, i, _ in backbone.blocks() if (module := backbone.attention_at(k, i))}
    hooks = [block.register_forward_hook(enter(number)) for number, (_, _, block) in enumerate(backbone.blocks())]
    for module in modules.values():
        module.process = wrapped(module.process)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in modules.values():
            del module.process  # the class's own one is left


def gate_statistics(model: Any, batches: Any) -> dict[int, GateStatistics]:
    """Statistics of a model's gates over a data set, by the number of each connected block in the scheme.

    Args:
        model: a model of mmengine's kind with an EAN backbone inside, in evaluation mode.
        batches: what its ``test_step`` takes, one after the other.

    Raises:
        ValueError: if no block is connected, or there is no batch.
    """
    backbone = find_backbone(model)
    if not backbone.scheme.connections:
        raise ValueError(f"scheme {str(backbone.scheme)!r} connects no block, so that there are no gates to look at")
    bits = backbone.scheme.bits
    moments = {number: GateMoments() for number, bit in enumerate(bits) if bit}
    with (
        torch.inference_mode(),
        watched_gates(backbone, lambda number, gate: moments[number].add(gate)),
        Progress("gates", len(batches)) as progress,
    ):
        for batch in batches:
            model.test_step(batch)
            progress.advance()
    return {number: found.statistics() for number, found in moments.items()}

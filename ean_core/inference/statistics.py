"""Gate statistics: how much the gates of each block vary across channels and across images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ean_core.attention import Attention
from ean_core.backbone import EANResNet, find_backbone
from ean_core.common.progress import Progress
from ean_core.windows import join_cores, windows_of

#: A gate is nearly constant if its spread across images is below this fraction of its mean.
NEARLY_CONSTANT = 0.05


class GateMoments:
    """Moments of one block's gates, summed in fp64 over batches.

    Channels are those of the gate: ``C`` for SE and DIA, the groups for SGE, where each position counts as an image.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None
        self._squares: Tensor | None = None

    def add(self, gate: Tensor) -> None:
        """Add the gates ``(N, C)`` or ``(N, C, H, W)`` of a batch."""
        values = gate.detach().double().flatten(2) if gate.ndim > 2 else gate.detach().double()[:, :, None]
        self.count += values.shape[0] * values.shape[2]
        total, squares = values.sum((0, 2)), values.square().sum((0, 2))  # (C,)
        self._sum = total if self._sum is None else self._sum + total
        self._squares = squares if self._squares is None else self._squares + squares

    @property
    def means(self) -> Tensor:
        """Mean of each channel's gates added so far ``(C,)``.

        Raises:
            ValueError: if no gate was added.
        """
        if self._sum is None:
            raise ValueError("cannot compute gate statistics: the data set is empty")
        return self._sum / self.count

    def statistics(self) -> GateStatistics:
        """Statistics of all gates added so far; errors as in :attr:`means`."""
        means = self.means
        assert self._squares is not None  # as there are means
        variances = (self._squares / self.count - means.square()).clamp(min=0)
        return GateStatistics(
            mean=means.mean().item(),
            between_channels=means.std(unbiased=False).item(),
            between_images=math.sqrt(variances.mean().item()),
        )


@dataclass(frozen=True)
class GateStatistics:
    """Distribution of a block's gates; the squares of the two spreads add up to the variance of all gates.

    Args:
        mean: mean over images, channels and positions.
        between_channels: standard deviation over channels of each channel's mean; it could be folded into weights.
        between_images: root mean square over channels of each channel's standard deviation over images (for SGE also
            over positions). Only this part depends on the image, which is the purpose of attention.
    """

    mean: float
    between_channels: float
    between_images: float

    @property
    def nearly_constant(self) -> bool:
        """Whether the gates are nearly the same for all images."""
        return self.between_images < NEARLY_CONSTANT * self.mean


@contextmanager
def watched_gates(backbone: EANResNet, take: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Call a function with each gate that a backbone applies and the index of its block in the scheme.

    The gate is the factor of the residual branch, including that of ``identity_start``. With windows, an image's gate
    of each channel is the mean over its windows, equally weighted; a gate per position is that of the whole map, where
    each position has the gate of the window whose core it belongs to.

    Args:
        backbone: a backbone that runs its blocks in order; restored afterwards.
        take: called with the index of the block, from 0, and the gate, ``(N, C)`` or ``(N, G, H, W)``.
    """
    running = -1  # the blocks of a stage share a module, which does not know the current block

    def enter(number: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal running
            running = number

        return hook

    applied: list[Tensor] = []  # by the module that is running, one per window

    def wrapped(recalibrate: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        def watched(residual: Tensor, gate: Tensor) -> Tensor:
            applied.append(gate)
            return recalibrate(residual, gate)

        return watched

    def leave(module: Attention, inputs: tuple[Any, ...], _: Any) -> None:
        gates = applied.copy()
        applied.clear()
        take(running, _gate_of_image(module, inputs[0], gates))

    modules = {id(module): module for k, i, _ in backbone.blocks() if (module := backbone.attention_at(k, i))}
    hooks = [block.register_forward_pre_hook(enter(i)) for i, (_, _, block) in enumerate(backbone.blocks())]
    hooks += [module.register_forward_hook(leave) for module in modules.values()]
    for module in modules.values():
        module.recalibrate = wrapped(module.recalibrate)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in modules.values():
            del module.recalibrate  # the class's method remains


def _gate_of_image(module: Attention, residual: Tensor, gates: list[Tensor]) -> Tensor:
    """Combine the gates of the windows of a residual branch ``(N, C, H, W)``."""
    if len(gates) == 1:
        return gates[0]
    if gates[0].ndim < 4 or all(gate.shape[2:].numel() == 1 for gate in gates):
        return torch.stack(gates).mean(0)
    assert module.window is not None
    return join_cores(windows_of(residual.shape[2:], module.window), gates)


def gate_statistics(model: Any, batches: Any) -> dict[int, GateStatistics]:
    """Statistics of a model's gates over a data set, by index of each connected block in the scheme.

    Args:
        model: an mmengine model with an EAN backbone, in evaluation mode.
        batches: batches for the model's ``test_step``.

    Raises:
        ValueError: if no block is connected or there are no batches.
    """
    backbone = find_backbone(model)
    if not backbone.scheme.connections:
        raise ValueError(f"scheme {str(backbone.scheme)!r} connects no block, so there are no gates")
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

"""Squeeze-and-Excitation: "Squeeze-and-Excitation Networks", Hu et al., CVPR 2018, arXiv 1709.01507."""

from __future__ import annotations

from torch import Tensor, nn

from .base import ATTENTION, Attention, State, reduced


@ATTENTION.register_module()
class SE(Attention):
    """One gate per channel, computed from the pooled residual by a two-layer bottleneck.

    Args:
        channels: ``C``, channels of the residual branch.
        reduction: ``r``; the hidden layer has ``C // r`` units.
        identity_start, window: see :class:`Attention`; with the former, the second layer starts at zero.
    """

    fresh_gate = 0.5  # sigmoid(0)
    per_channel = True

    # A reduction of 16 would leave one hidden unit in a CIFAR network of basic blocks.
    cifar_options = {"bottleneck": {"reduction": 16}, "basic": {"reduction": 4}}

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        identity_start: bool = False,
        window: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(channels, identity_start=identity_start, window=window)
        hidden = reduced(channels, reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        if identity_start:
            nn.init.zeros_(self.fc2.weight)
            nn.init.zeros_(self.fc2.bias)

    def extract(self, residual: Tensor) -> Tensor:
        return residual.mean((2, 3))  # (N, C)

    def process(self, extracted: Tensor, state: State) -> tuple[Tensor, State]:
        gate = self.fc2(self.fc1(extracted).relu()).sigmoid()  # (N, C)
        return gate, None

    def recalibrate(self, residual: Tensor, gate: Tensor) -> Tensor:
        return residual * gate.to(residual.dtype)[:, :, None, None]

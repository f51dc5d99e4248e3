"""Dense-and-Implicit Attention: "DIANet: Dense-and-Implicit Attention Network", Huang et al., AAAI 2020,
arXiv 1905.10671."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import ATTENTION, Attention, State, reduced


@ATTENTION.register_module()
class DIA(Attention):
    """One gate per channel, from an LSTM cell that runs over the connected blocks of a stage.

    Its hidden state is the gate, and the cell state passes through a sigmoid where the usual LSTM uses tanh.

    Args:
        channels: ``C``, channels of the residual branch.
        reduction: ``r``; both maps to the cell's gates have a hidden layer of ``C // r`` units.
        identity_start, window: see :class:`Attention`; with the former, the second layers of both maps start at zero,
            which keeps the cell at zero.
    """

    recurrent = True
    per_channel = True
    fresh_gate = 0.25  # sigmoid(0) * sigmoid(0)
    cifar_options = {"bottleneck": {"reduction": 4}, "basic": {"reduction": 4}}

    def __init__(
        self,
        channels: int,
        reduction: int = 20,
        *,
        identity_start: bool = False,
        window: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(channels, identity_start=identity_start, window=window)
        self.w_ih = _squeezed(channels, reduced(channels, reduction))
        self.w_hh = _squeezed(channels, reduced(channels, reduction))
        if identity_start:
            for second in (self.w_ih[2], self.w_hh[2]):
                nn.init.zeros_(second.weight)  # type: ignore[arg-type]
                nn.init.zeros_(second.bias)  # type: ignore[arg-type]

    def extract(self, residual: Tensor) -> Tensor:
        return residual.mean((2, 3))  # (N, C)

    def process(self, extracted: Tensor, state: State) -> tuple[Tensor, State]:
        if state is None:
            state = (torch.zeros_like(extracted), torch.zeros_like(extracted))
        hidden, cell = state  # (N, C) each
        i, f, g, o = (self.w_ih(extracted) + self.w_hh(hidden)).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.sigmoid()
        return hidden, (hidden, cell)

    def recalibrate(self, residual: Tensor, gate: Tensor) -> Tensor:
        return residual * gate.to(residual.dtype)[:, :, None, None]


def _squeezed(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 4 * channels))

"""Spatial Group-wise Enhance: "Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional
Networks", Li et al., arXiv 1905.09646."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .base import ATTENTION, Attention, State

EPS = 1e-5  # added to the standard deviation, not to the variance


@ATTENTION.register_module()
class SGE(Attention):
    """One gate per position and channel group: how similar the position is to the group's pooled vector.

    Args:
        channels: ``C``, channels of the residual branch.
        groups: ``G``, a divisor of ``C``.
        identity_start, window: see :class:`Attention`.

    Raises:
        ValueError: if ``groups`` does not divide ``channels``.
    """

    fresh_gate = 1 / (1 + math.exp(-1))  # sigmoid(1), at every position: the scale starts at zero
    cifar_options = {"bottleneck": {"groups": 4}, "basic": {"groups": 4}}

    def __init__(
        self,
        channels: int,
        groups: int = 64,
        *,
        identity_start: bool = False,
        window: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(channels, identity_start=identity_start, window=window)
        if groups < 1 or channels % groups:
            near = max(g for g in range(1, max(2, min(groups, channels) + 1)) if channels % g == 0)
            raise ValueError(f"groups={groups} does not divide {channels} channels; for example groups={near} does")
        self.groups = groups
        self.weight = nn.Parameter(torch.zeros(groups))
        self.bias = nn.Parameter(torch.ones(groups))

    def extract(self, residual: Tensor) -> Tensor:
        grouped = residual.unflatten(1, (self.groups, -1))  # (N, G, C/G, H, W)
        # Under autocast the statistics stay in fp32: a bf16 mean over thousands of positions is too coarse.
        precise = torch.promote_types(residual.dtype, torch.float32)
        pooled = grouped.mean((3, 4), keepdim=True, dtype=precise)  # (N, G, C/G, 1, 1)
        similarity = (grouped * pooled).sum(2)  # (N, G, H, W)
        positions = similarity.shape[2] * similarity.shape[3]
        # The unbiased deviation of a single position would be NaN; `//` instead of a branch keeps this traceable.
        std, mean = torch.std_mean(similarity, (2, 3), correction=1 - 1 // positions, keepdim=True)
        return (similarity - mean) / (std + EPS)  # (N, G, H, W)

    def process(self, extracted: Tensor, state: State) -> tuple[Tensor, State]:
        gate = (extracted * self.weight[:, None, None] + self.bias[:, None, None]).sigmoid()  # (N, G, H, W)
        return gate, None

    def recalibrate(self, residual: Tensor, gate: Tensor) -> Tensor:
        grouped = residual.unflatten(1, (self.groups, -1))
        return (grouped * gate.to(residual.dtype)[:, :, None]).flatten(1, 2)

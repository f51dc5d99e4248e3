"""Attention gates for inference, computed from the *input* of the convolution before the attention module.

In evaluation mode, a residual branch that ends in a 1x1 convolution is ``f = W z + b`` at every position, with its norm
folded into ``W`` and ``b``. A mean over positions commutes with this map, ``mean(f) = W mean(z) + b``, so a gate that
depends on means can be computed from ``z``, which has a quarter of the channels, before ``f`` exists. The products of
the module's matrices with ``W`` are precomputed here; nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ean_core.attention import Attention, State
from ean_core.attention.dia import DIA
from ean_core.attention.se import SE
from ean_core.attention.sge import EPS, SGE
from ean_core.windows import Window, at_positions, join_cores, window_means, windows_of

from . import kernels
from .ops import may_overwrite, pool, precise, use_kernels


class Gate(nn.Module):
    """The attention module of one block, for inference.

    ``forward(z, state)`` returns a factor for the residual branch, ``(N, G, 1, 1)`` or ``(N, G, H, W)`` with ``G``
    groups of channels, and the state for the next connected block; ``state`` is ``None`` at a stage's start.

    Args:
        module: the attention module.
        last: the convolution between ``z`` and the residual branch, 1x1 with stride 1 and its norm folded in; None
            if ``z`` is the residual branch itself.
        groups_last: channel ``c`` of the residual branch in memory belongs to group ``c % G``. The channels of ``last``
            are always in the usual order.
    """

    def __init__(self, module: Attention, last: nn.Conv2d | None, groups_last: bool) -> None:
        super().__init__()

    @staticmethod
    def groups(module: Attention) -> int | None:
        """``G``, or None if each channel has its own factor."""
        return None


class PooledGate(Gate):
    """A gate that depends on means over positions alone, and is one factor per channel."""

    def from_means(self, pooled: Tensor, state: State) -> tuple[Tensor, State]:
        """The factors ``(N, C)`` and the next state, from means ``(N, K)`` in at least fp32."""
        raise NotImplementedError

    def forward(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        gate, state = self.from_means(pool(z), state)
        return gate.view(*gate.shape, 1, 1), state


#: Gate class by attention class; looked up by exact type, since a subclass may compute something else.
GATES: dict[type[Attention], type[Gate]] = {}


def register_gate(attention: type[Attention]) -> Callable[[type[Gate]], type[Gate]]:
    """Register a :class:`Gate` as the deployed form of ``attention``."""

    def register(gate: type[Gate]) -> type[Gate]:
        GATES[attention] = gate
        return gate

    return register


@register_gate(SE)
class SEGate(PooledGate):
    """``sigmoid(W2 relu(W1 mean(f)))`` as ``sigmoid(W2 relu((W1 W) mean(z)))``; biases likewise."""

    def __init__(self, module: SE, last: nn.Conv2d | None, groups_last: bool) -> None:
        super().__init__(module, last, groups_last)
        self.squeeze = before(module.fc1, last)
        self.excite = module.fc2

    def from_means(self, pooled: Tensor, state: State) -> tuple[Tensor, State]:
        if use_kernels(pooled):
            first, second = self.squeeze, self.excite
            return kernels.se_gate(pooled, first.weight, first.bias, second.weight, second.bias), None
        return self.excite(self.squeeze(pooled).relu_()).sigmoid_(), None  # (N, C)


@register_gate(DIA)
class DIAGate(PooledGate):
    """DIA's cell, with the first matrix of its input map multiplied by the convolution's matrix.

    At a stage's start the hidden state is zero, so the output of the recurrent map is a constant.
    """

    def __init__(self, module: DIA, last: nn.Conv2d | None, groups_last: bool) -> None:
        super().__init__(module, last, groups_last)
        first_ih, self.second_ih = _maps(module.w_ih)  # all but first_ih are shared by the gates of a stage
        self.first_hh, self.second_hh = _maps(module.w_hh)
        self.squeeze = before(first_ih, last)
        self.bias = nn.Parameter(self.second_ih.bias + self.second_hh.bias)
        self.first_bias = nn.Parameter(self.second_ih.bias + self.second_hh(self.first_hh.bias.relu()))

    def from_means(self, pooled: Tensor, state: State) -> tuple[Tensor, State]:
        if use_kernels(pooled):
            gate, cell = kernels.dia_gate(
                pooled,
                self.squeeze.weight,
                self.squeeze.bias,
                self.second_ih.weight,
                self.first_bias if state is None else self.bias,
                None if state is None else (state[0], state[1]),
                self.first_hh.weight,
                self.first_hh.bias,
                self.second_hh.weight,
            )
            return gate, (gate, cell)
        hidden = self.squeeze(pooled).relu_()  # (N, C / r)
        if state is None:
            gates = F.linear(hidden, self.second_ih.weight, self.first_bias)
        else:
            recurrent = self.first_hh(state[0]).relu_()  # (N, C / r)
            gates = F.linear(hidden, self.second_ih.weight, self.bias)
            gates = torch.addmm(gates, recurrent, self.second_hh.weight.t())
        i, f, _, o = gates.sigmoid().chunk(4, dim=1)  # (N, C) each
        g = gates.chunk(4, dim=1)[2].tanh()
        cell = i * g if state is None else torch.addcmul(f * state[1], i, g)
        gate = o * cell.sigmoid()
        return gate, (gate, cell)


@register_gate(SGE)
class SGEGate(Gate):
    """Similarity of each position to its group's mean, from one vector per group in the channels of ``z``.

    A group's similarity at a position is ``sum_c mean(f_c) f_c``, which is ``v z`` plus a constant with
    ``v = sum_c mean(f_c) W_c``; the normalization over positions removes the constant.
    """

    def __init__(self, module: SGE, last: nn.Conv2d | None, groups_last: bool) -> None:
        super().__init__(module, last, groups_last)
        self.groups_last = groups_last
        self.weight = nn.Parameter(module.weight)
        self.bias = nn.Parameter(module.bias)
        self.members: nn.Parameter | None = None
        if last is not None:
            self.members = nn.Parameter(last.weight.flatten(1))  # (C, K)
            self.offsets = nn.Parameter(_bias(last))  # (C,)

    @staticmethod
    def groups(module: SGE) -> int:  # type: ignore[override]
        return module.groups

    def forward(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        h, w = z.shape[2:]
        similarity = self._similarity(z)  # (N, HW, G)
        if use_kernels(similarity):
            gate = kernels.sge_gate(similarity, self.weight, self.bias, out_dtype=z.dtype)
            return gate.transpose(1, 2).unflatten(2, (h, w)), None
        similarity = similarity.to(self.weight.dtype)
        if z.dtype != self.weight.dtype:  # the similarity was rounded, so its mean is not exactly zero
            similarity = similarity - similarity.mean(1, keepdim=True)
        freedom: Any = torch.sym_max(h * w - 1, 1)  # a single position does not deviate from its own mean
        if may_overwrite(similarity):
            deviation = similarity.square().sum(1, keepdim=True).div_(freedom).sqrt_()  # (N, 1, G)
            gate = torch.addcmul(self.bias, similarity, self.weight / (deviation + EPS), out=similarity).sigmoid_()
        else:  # the norm is slower on a CPU, but has a gradient at zero
            deviation = torch.linalg.vector_norm(similarity, dim=1, keepdim=True) / freedom**0.5
            gate = torch.addcmul(self.bias, similarity, self.weight / (deviation + EPS)).sigmoid()
        return gate.transpose(1, 2).unflatten(2, (h, w)), None  # (N, G, H, W), channels last

    def _similarity(self, z: Tensor) -> Tensor:
        """Similarity of each position to each group's mean, minus its mean over positions; ``(N, HW, G)``."""
        pooled = pool(z)  # (N, K)
        groups = len(self.weight)
        if self.members is None:  # z is the residual branch
            split = (-1, groups) if self.groups_last else (groups, -1)
            means = pooled.unflatten(1, split)
            dim = 1 if self.groups_last else 2
            product = (z.unflatten(1, split) * means[..., None, None]).sum(dim).flatten(2).transpose(1, 2)
            return product - means.square().sum(dim)[:, None]
        each = len(self.members) // groups
        means = F.linear(pooled, self.members, self.offsets).view(-1, groups, each).transpose(0, 1)  # (G, N, C/G)
        vectors = torch.bmm(means, self.members.view(groups, each, -1)).permute(1, 2, 0)  # (N, K, G)
        centre = torch.bmm(pooled.unsqueeze(1), vectors)  # (N, 1, G)
        positions = z.permute(0, 2, 3, 1).flatten(1, 2)  # (N, HW, K)
        return torch.baddbmm(centre.to(z.dtype), positions, vectors.to(z.dtype), beta=-1)


class WindowedGate(Gate):
    """A gate per window of the feature map, see :func:`~ean_core.windows.windows_of`.

    Gates of means are computed for all windows at once, from one pass over the map; others window by window.

    Args:
        gate: the gate of one window.
        window: height and width of a window, in positions.
    """

    def __init__(self, gate: Gate, window: tuple[int, int]) -> None:
        nn.Module.__init__(self)
        self.gate, self.window = gate, window

    def forward(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """As :class:`Gate`; factors of identical rows may be given once, ``(N, C, H / r, 1, W)``."""
        windows = windows_of(z.shape[2:], self.window)
        if len(windows) == 1:
            return self.gate(z, state)
        if not isinstance(self.gate, PooledGate):
            return self._one_by_one(z, windows, state)
        gate, state = self.gate.from_means(window_means(z, self.window, precise(z.dtype)), state)
        return at_positions(gate, z.shape[2:], self.window), state

    def _one_by_one(self, z: Tensor, windows: list[Window], state: State) -> tuple[Tensor, State]:
        each: Any = repeat(None)
        if state is not None:
            each = zip(*(part.chunk(len(windows)) for part in state), strict=True)
        factors, states = zip(*(self.gate(w.of(z), own) for w, own in zip(windows, each, strict=False)), strict=True)
        advanced = None if states[0] is None else tuple(torch.cat(parts) for parts in zip(*states, strict=True))
        cores = []
        for window, factor in zip(windows, factors, strict=True):
            top, left, bottom, right = window.core
            cores.append(window.inner(factor).expand(-1, -1, bottom - top, right - left))
        return join_cores(windows, cores), advanced


def before(linear: nn.Linear, last: nn.Conv2d | None) -> nn.Linear:
    """``linear`` on the pooled residual branch, rewritten as a map of its last convolution's pooled input."""
    if last is None:
        return linear
    weight = last.weight.flatten(1)  # (C, K)
    product = nn.Linear(weight.shape[1], linear.out_features)
    product.weight.data = linear.weight @ weight
    product.bias.data = linear(_bias(last))
    return product


def _maps(squeezed: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    first, _, second = squeezed
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    return first, second


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias

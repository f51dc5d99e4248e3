"""The interface of an attention module, and the registry of all modules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from mmengine.registry import Registry
from torch import Tensor, nn

from ean_core.common.errors import unknown_name

#: Attention modules by name. ``@ATTENTION.register_module()`` on a class is all that a new module needs.
ATTENTION = Registry("attention", scope="ean_core", locations=["ean_core.attention"])

#: State passed from one connected block of a stage to the next: ``None`` for stateless modules, and at a stage's start,
#: where it is equivalent to zeros.
State = tuple[Tensor, ...] | None


class Attention(nn.Module, ABC):
    """An attention module ``M`` that rescales the residual branch of the blocks it is connected to (Eqn 4).

    The three steps of the paper's introduction are separate methods, because deployment reorders them and
    visualization inspects the gate between them. A subclass implements all three; its ``__init__`` takes ``channels``
    first, then options with defaults (those of the paper's ImageNet networks), and the options of this class.

    Args:
        channels: ``C``, channels of the residual branch.
        identity_start: divide the gate by :attr:`fresh_gate`, and initialize the module to give exactly that gate, so
            that a connected block starts as if it had no attention. For networks that start from weights without
            attention: a fresh gate would shrink their residual branches, and features with them.
        window: height and width, in positions of the feature map, of the regions that have gates of their own; see
            :func:`windows_of`. The ``attention`` option of a backbone gives them in pixels of the image. None: one gate
            for the whole image.
    """

    #: The gate of a module that is initialized with ``identity_start``, before the division.
    fresh_gate: ClassVar[float]

    #: Options that suit the narrow CIFAR networks better than the defaults, for bottlenecks and for basic blocks.
    cifar_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {"bottleneck": {}, "basic": {}}

    #: Whether the gate is one factor per channel, ``(N, C)``, so that a constant gate can take its place (``c`` in a
    #: scheme); such a module has a ``fresh_gate``.
    per_channel: ClassVar[bool] = False

    #: Whether the module carries a state across the blocks of a stage, and therefore exists only once per stage.
    recurrent: ClassVar[bool] = False

    def __init__(self, channels: int, *, identity_start: bool = False, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.window = window
        #: Factor of the gate, applied by :meth:`forward`.
        self.gain = 1 / self.fresh_gate if identity_start else 1.0

    @abstractmethod
    def extract(self, residual: Tensor) -> Tensor:
        """Statistics of a residual branch ``(N, C, H, W)``; their shape depends on the module."""

    @abstractmethod
    def process(self, extracted: Tensor, state: State) -> tuple[Tensor, State]:
        """The gate and the next state, from the output of :meth:`extract` and the stage's state."""

    @abstractmethod
    def recalibrate(self, residual: Tensor, gate: Tensor) -> Tensor:
        """The residual branch ``(N, C, H, W)`` scaled by the gate; same shape and dtype."""

    def forward(self, residual: Tensor, state: State = None, connection: Tensor | None = None) -> tuple[Tensor, State]:
        """Recalibrate a residual branch, ``(a M(f) + (1 - a)) f`` (Eqn 4).

        Args:
            residual: ``(N, C, H, W)``, the branch ``f`` after its last normalization.
            state: the state returned by the previous connected block of the stage, ``None`` at the stage's start.
            connection: ``a``, a number in ``[0, 1]`` on the device; None for 1. At 0, branch and state are exactly
                unchanged.

        Returns:
            The recalibrated branch ``(N, C, H, W)`` and the state for the next connected block.
        """
        # Without windows nothing depends on the size of the map, so that it may be symbolic.
        windows = [] if self.window is None else windows_of(residual.shape[2:], self.window)
        if len(windows) < 2:
            extracted = self.extract(residual)
        else:
            extracted = torch.cat([self.extract(window.of(residual)) for window in windows])
        gate, advanced = self.process(extracted, state)
        if self.gain != 1:
            gate = self.gain * gate
        if connection is not None:
            gate = connection * gate + (1 - connection)
            if advanced is not None:
                before = tuple(map(torch.zeros_like, advanced)) if state is None else state
                advanced = tuple(
                    connection * new + (1 - connection) * old for old, new in zip(before, advanced, strict=True)
                )
        if len(windows) < 2:
            return self.recalibrate(residual, gate), advanced
        gates = zip(windows, gate.chunk(len(windows)), strict=True)
        cores = [self.recalibrate(window.core_of(residual), window.inner(each)) for window, each in gates]
        return join_cores(windows, cores), advanced


@dataclass(frozen=True)
class Window:
    """A region of a feature map whose statistics give a gate, and its core, the positions that the gate scales.

    Args:
        top, left, bottom, right: first and past-the-last row and column of the region.
        core: the same of its core.
    """

    top: int
    left: int
    bottom: int
    right: int
    core: tuple[int, int, int, int]

    def of(self, x: Tensor) -> Tensor:
        """The region of a map ``(N, C, H, W)``."""
        return x[:, :, self.top : self.bottom, self.left : self.right]

    def core_of(self, x: Tensor) -> Tensor:
        """The core in a map ``(N, C, H, W)``."""
        top, left, bottom, right = self.core
        return x[:, :, top:bottom, left:right]

    def inner(self, gate: Tensor) -> Tensor:
        """The core's part of the region's gate: all of it, unless it has one value per position ``(N, G, h, w)``."""
        if gate.dim() != 4 or gate.shape[2:].numel() == 1:
            return gate
        top, left, bottom, right = self.core
        return gate[:, :, top - self.top : bottom - self.top, left - self.left : right - self.left]


def windows_of(size: Sequence[int], window: tuple[int, int]) -> list[Window]:
    """Cover a feature map with overlapping windows; a map that is not larger than one is a single window.

    Gates computed from crops of one size do not fit larger images: their means over positions vary less. With windows
    of the size of the training crops, an image of any size is recalibrated as its crops were ("Improving Image
    Restoration by Revisiting Global Information Aggregation", Chu et al., ECCV 2022, who pool around each position).
    Neighbors overlap by about a half, and a position belongs to the core of the window whose center is nearest.

    Args:
        size: height and width of the map.
        window: height and width of a window.

    Returns:
        Windows of equal size, row by row.

    Examples:
        >>> [(w.left, w.right, w.core[1], w.core[3]) for w in windows_of((4, 10), (4, 4))]
        [(0, 4, 0, 3), (2, 6, 3, 5), (4, 8, 5, 7), (6, 10, 7, 10)]
    """
    rows, columns = (_spans(length, side) for length, side in zip(size, window, strict=True))
    return [
        Window(top, left, bottom, right, (first, before, last, after))
        for top, bottom, first, last in rows
        for left, right, before, after in columns
    ]


def _spans(length: int, side: int) -> list[tuple[int, int, int, int]]:
    """Start and end of each window along one axis, and of its core."""
    if length <= side:
        return [(0, length, 0, length)]
    number = 1 + math.ceil((length - side) / max(1, side // 2))
    starts = [round(i * (length - side) / (number - 1)) for i in range(number)]
    middles = [(first + second + side + 1) // 2 for first, second in pairwise(starts)]
    cores = zip([0, *middles], [*middles, length], strict=True)
    return [(start, start + side, *core) for start, core in zip(starts, cores, strict=True)]


def join_cores(windows: Sequence[Window], cores: Sequence[Tensor]) -> Tensor:
    """Put the cores ``(N, C, h, w)`` of all windows together: ``(N, C, H, W)``."""
    rows: dict[int, list[Tensor]] = {}
    for window, core in zip(windows, cores, strict=True):
        rows.setdefault(window.top, []).append(core)
    return torch.cat([torch.cat(row, 3) for row in rows.values()], 2)


def attention_class(name: str) -> type[Attention]:
    """The registered module called ``name``.

    Raises:
        ValueError: if there is none; the message lists the valid names.
    """
    found = ATTENTION.module_dict.get(name) if isinstance(name, str) else None
    if found is None:
        raise unknown_name("attention", name, ATTENTION.module_dict)
    return found


def reduced(channels: int, reduction: int) -> int:
    """Number of hidden units of a squeeze layer: ``channels // reduction``, at least one.

    Raises:
        ValueError: if ``reduction`` is below 1.
    """
    if reduction < 1:
        raise ValueError(f"reduction must be a positive integer, got {reduction}; for example 16")
    return max(1, channels // reduction)

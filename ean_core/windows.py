"""Windows: regions of a feature map that have gates of their own, so that a gate sees what it saw in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


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
    rows, columns = spans_of(size, window)
    return [
        Window(top, left, bottom, right, (first, before, last, after))
        for top, bottom, first, last in rows
        for left, right, before, after in columns
    ]


#: Along one axis: start and end of a window, and of its core.
Span = tuple[int, int, int, int]


def spans_of(size: Sequence[int], window: tuple[int, int]) -> tuple[list[Span], list[Span]]:
    """The rows and the columns of windows, which :func:`windows_of` combines."""
    rows, columns = (_spans(length, side) for length, side in zip(size, window, strict=True))
    return rows, columns


def _spans(length: int, side: int) -> list[Span]:
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


def window_means(x: Tensor, window: tuple[int, int], dtype: torch.dtype | None = None) -> Tensor:
    """Mean over the positions of each window, ``(windows * N, C)``: window by window, as ``torch.cat`` would join them.

    The map is read once, and averaged over rows that belong to the same windows; windows are put together from these
    means. One mean per window would read a position up to four times, because neighbors overlap by a half. On a CPU the
    pooling of PyTorch takes a twentieth of the time of its sum over rows, and suits the layout of ONNX Runtime.

    Args:
        x: ``(N, C, H, W)``.
        window: height and width of a window, see :func:`windows_of`.
        dtype: of the means; that of ``x`` if None.
    """
    height = x.shape[2]
    rows, columns = spans_of(x.shape[2:], window)
    each = math.gcd(height, *(edge for top, bottom, *_ in rows for edge in (top, bottom)))
    pooled = F.avg_pool2d(x if dtype is None else x.to(dtype), (each, 1))  # (N, C, H / each, W)
    of_row = _shares(columns, 1, pooled) @ pooled.permute(2, 0, 3, 1)  # (H / each, N, windows of a row, C)
    means = _shares(rows, each, pooled) @ of_row.flatten(1)  # (rows of windows, N * windows of a row * C)
    return means.view(len(rows), x.shape[0], len(columns), x.shape[1]).transpose(1, 2).flatten(0, 2)


def at_positions(gate: Tensor, size: Sequence[int], window: tuple[int, int]) -> Tensor:
    """The gate of each position: that of the window whose core it belongs to.

    Identical rows, whose positions belong to the same windows, are given once: a map of gates would be as large as the
    branch that it scales, and be written and read once more.

    Args:
        gate: ``(windows * N, C)``, in the order of :func:`window_means`.
        size: ``H`` and ``W`` of the map.
        window: height and width of a window.

    Returns:
        ``(N, C, H / r, 1, W)``, for the map's rows in groups of ``r``.
    """
    height, _ = size
    rows, columns = spans_of(size, window)
    each = math.gcd(height, *(last for *_, last in rows))
    gates = gate.unflatten(0, (len(rows), len(columns), -1))  # (rows of windows, windows of a row, N, C)
    gates = _repeated(gates, 0, [(last - first) // each for *_, first, last in rows])
    return _repeated(gates, 1, [last - first for *_, first, last in columns]).permute(2, 3, 0, 1).unsqueeze(3)


# Neither builds a tensor from Python numbers, which on a GPU is a copy that waits, and that no CUDA graph can hold.


def _repeated(x: Tensor, dim: int, times: Sequence[int]) -> Tensor:
    """Each slice of a dimension as many times in a row as given for it."""
    shape = [-1] * x.dim()
    return torch.cat(
        [x.narrow(dim, n, 1).expand(*shape[:dim], many, *shape[dim + 1 :]) for n, many in enumerate(times)], dim
    )


def _shares(spans: Sequence[Span], each: int, like: Tensor) -> Tensor:
    """Weights of the mean over each span, of the ``each``-long parts of an axis; ``(spans, parts)``."""
    side, parts = spans[0][1] // each, spans[-1][1] // each
    share = like.new_full((side,), 1 / side)
    return torch.stack([F.pad(share, (start // each, parts - end // each)) for start, end, *_ in spans])

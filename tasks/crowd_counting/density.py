"""Density maps: one Gaussian of mass one per head, so that a map sums to the number of people.

Heads are points ``(x, y)`` in pixels, with x to the right and y down. Pixel ``(row r, column c)`` covers
``c <= x < c + 1`` and ``r <= y < r + 1``, so that an image covers ``[0, W) x [0, H)``, as for ShanghaiTech's points.
A kernel is centered on the pixel that contains the head, as in public crowd-counting code.

"Single-Image Crowd Counting via Multi-Column Convolutional Neural Network", Zhang et al., CVPR 2016: fixed and
geometry-adaptive kernels.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from ean_core.common.errors import unknown_name

from .choices import OUTSIDE, Outside

#: Kernel radius in standard deviations, the default of SciPy's ``gaussian_filter``.
TRUNCATE = 4.0


def density_map(
    points: ArrayLike,
    shape: tuple[int, int],
    sigma: float | Literal["adaptive"] | NDArray[np.floating] = 15,
    beta: float = 0.3,
    k: int = 3,
    normalise: bool = True,
    *,
    outside: Outside = "clamp",
) -> NDArray[np.float64]:
    """Sum one Gaussian per head, each computed only on its own window.

    Equal to the sum over heads of an image with that head's pixel set, filtered by
    ``scipy.ndimage.gaussian_filter(mode='constant')``.

    Args:
        points: heads ``(N, 2)``, x and y in pixels; N may be 0.
        shape: height and width of the image.
        sigma: standard deviation in pixels, for all heads or per head ``(N,)``; ``'adaptive'`` for
            :func:`adaptive_sigmas`.
        beta, k: parameters of adaptive kernels.
        normalise: rescale kernels cut by the image border to mass one, so that the sum is the number of heads;
            otherwise the mass beyond the border is lost.
        outside: treatment of heads outside of the image, see :data:`Outside`.

    Returns:
        People per pixel, ``(H, W)``, never negative.

    Raises:
        ValueError: if points, shape or sigma are malformed or not finite.

    Examples:
        >>> density = density_map([[3.5, 2.5], [0, 0]], (8, 10), sigma=2)
        >>> density.shape, round(float(density.sum()), 9)
        ((8, 10), 2.0)
    """
    height, width = _checked_shape(shape)
    heads = as_points(points)
    sigmas = _sigmas(heads, (height, width), sigma, beta, k)
    inside = is_inside(heads, (height, width))
    heads, chosen = resolve_outside(heads, (height, width), outside)
    sigmas, inside = sigmas[chosen], inside[chosen]
    density = np.zeros((height, width))
    columns, rows = np.floor(heads).astype(np.int64).T
    kernel, known = np.ones(1), 0.0
    window = np.ones((1, 1))  # used if it lies entirely in the image
    for column, row, deviation, within in zip(columns.tolist(), rows.tolist(), sigmas.tolist(), inside, strict=True):
        if deviation != known:
            kernel, known = _kernel(deviation), deviation
            fits = len(kernel) <= min(height, width)
            window = kernel[:, None] * kernel if fits else np.empty((0, 0))
        radius = len(kernel) // 2
        top, bottom = max(row - radius, 0), min(row + radius + 1, height)
        left, right = max(column - radius, 0), min(column + radius + 1, width)
        if (bottom - top, right - left) == window.shape:
            density[top:bottom, left:right] += window
        elif top < bottom and left < right:  # otherwise a head kept outside, too far away to reach the image
            down = kernel[top - row + radius : bottom - row + radius]
            along = kernel[left - column + radius : right - column + radius]
            if normalise and (within or outside == "clamp"):
                down, along = down / down.sum(), along / along.sum()
            density[top:bottom, left:right] += down[:, None] * along
    return density


def adaptive_sigmas(points: ArrayLike, shape: tuple[int, int], beta: float = 0.3, k: int = 3) -> NDArray[np.float64]:
    """Geometry-adaptive sigmas: ``beta`` times the mean distance to the ``k`` nearest other heads (Zhang et al.).

    With fewer heads, all available neighbors are used; a single head gets a quarter of the mean of height and width.
    Coincident heads get 0: each stays in its pixel.

    Args:
        points: heads ``(N, 2)``.
        shape: height and width of the image, in pixels.
        beta: factor, above 0.
        k: number of neighbors, at least 1.

    Returns:
        Sigmas in pixels, ``(N,)``, all finite.
    """
    if not (math.isfinite(beta) and beta > 0) or k < 1:
        raise ValueError(f"beta must be above 0 and k at least 1, got beta={beta}, k={k}; usual values are 0.3 and 3")
    heads = as_points(points)
    height, width = _checked_shape(shape)
    neighbours = min(k, len(heads) - 1)
    if neighbours < 1:
        return np.full(len(heads), (height + width) / 2 / 4)
    distances, _ = KDTree(heads).query(heads, k=neighbours + 1)
    return beta * distances[:, 1:].mean(1)


def as_points(points: ArrayLike) -> NDArray[np.float64]:
    """Convert heads to an array ``(N, 2)``; an empty list gives ``(0, 2)``.

    Raises:
        ValueError: if they are not pairs of finite numbers.
    """
    try:
        heads = np.asarray(points, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"points must be pairs (x, y) of numbers: {error}") from None
    if heads.size == 0:
        return np.zeros((0, 2))
    if heads.ndim != 2 or heads.shape[1] != 2:
        raise ValueError(f"points must be pairs (x, y), an array (N, 2); got shape {heads.shape}")
    if not np.isfinite(heads).all():
        raise ValueError(f"points must be finite; got {heads[~np.isfinite(heads).all(1)][0].tolist()}")
    return heads


def is_inside(points: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask ``(N,)`` of the heads ``(N, 2)`` that lie in an image of this height and width."""
    height, width = shape
    x, y = points.T
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def resolve_outside(
    points: NDArray[np.float64], shape: tuple[int, int], rule: Outside
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Apply a rule to heads outside of the image; return the resulting heads and their indices in ``points``.

    Args:
        points: heads ``(N, 2)``.
        shape: height and width of the image, in pixels.
        rule: see :data:`Outside`.
    """
    check_outside(rule)
    if rule == "drop":
        chosen = np.flatnonzero(is_inside(points, shape))
        return points[chosen], chosen
    if rule == "clamp":
        height, width = shape
        highest = (last_below(width), last_below(height))
        points = np.where(is_inside(points, shape)[:, None], points, np.clip(points, 0, highest))
    return points, np.arange(len(points))


def check_outside(rule: str) -> None:
    """Raise ValueError for an unknown rule."""
    if rule not in OUTSIDE:
        raise unknown_name("rule for points outside of the image", rule, OUTSIDE)


def last_below(side: int) -> float:
    """Largest float32 below a side, so that rounding to float32 moves no head out of its image."""
    return float(np.nextafter(np.float32(side), np.float32(0)))


def resample(density: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Resize a map, keeping its sum: each pixel's mass is distributed by area over the new pixels that it covers.

    Args:
        density: map ``(H, W)``.
        shape: new height and width.

    Examples:
        >>> resample(np.array([[3.0, 3.0, 3.0]]), (1, 2))
        array([[4.5, 4.5]])
    """
    height, width = density.shape
    return _shares(height, shape[0]).T @ density.astype(np.float64) @ _shares(width, shape[1])


def spread(cells: NDArray[np.floating], stride: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Upsample a network's map to its image: each cell's mass is spread evenly over the image pixels that it covers.

    The inverse of :func:`~tasks.crowd_counting.network.sum_cells`, as far as there is one; the sum is kept even if
    the last cells extend beyond the image.

    Args:
        cells: map ``(ceil(H / stride), ceil(W / stride))``.
        stride: side of a cell, in pixels.
        shape: height and width of the image.

    Raises:
        ValueError: if the number of cells does not match the image.
    """
    height, width = shape
    if cells.shape != (-(-height // stride), -(-width // stride)):
        raise ValueError(f"{cells.shape} cells do not match an image of {height} x {width} pixels")
    rows = np.minimum(stride, height - stride * np.arange(cells.shape[0]))
    columns = np.minimum(stride, width - stride * np.arange(cells.shape[1]))
    each = (cells / rows[:, None] / columns).astype(np.float32)
    return each.repeat(rows, 0).repeat(columns, 1)


def _shares(before: int, after: int) -> NDArray[np.float64]:
    """Share of each of ``before`` equal parts of a line in each of ``after`` equal parts, ``(before, after)``."""
    edges = np.linspace(0, before, after + 1)
    starts = np.arange(before)[:, None]
    return np.clip(np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts), 0, None)


def _kernel(sigma: float) -> NDArray[np.float64]:
    """Sampled Gaussian with sum one, ``(2 radius + 1,)``."""
    radius = int(TRUNCATE * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def _sigmas(
    heads: NDArray[np.float64], shape: tuple[int, int], sigma: float | str | NDArray[np.floating], beta: float, k: int
) -> NDArray[np.float64]:
    """Sigma of each head, ``(N,)``."""
    if isinstance(sigma, str):
        if sigma != "adaptive":
            raise ValueError(f"sigma must be a number of pixels, one per head, or 'adaptive', got {sigma!r}")
        return adaptive_sigmas(heads, shape, beta, k)
    sigmas = np.asarray(sigma, dtype=np.float64)
    if not np.isfinite(sigmas).all() or (sigmas < 0).any() or sigmas.shape not in ((), (len(heads),)):
        raise ValueError(
            f"sigma must be a non-negative number of pixels, one for all heads or one for each of the {len(heads)}, or "
            f"'adaptive'; got {sigma!r}"
        )
    return np.broadcast_to(sigmas, len(heads))


def _checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in shape)
    except (TypeError, ValueError):
        raise ValueError(f"shape must be the height and width of an image in pixels, got {shape!r}") from None
    if height < 1 or width < 1:
        raise ValueError(f"an image needs at least one pixel, got shape {shape!r}")
    return height, width

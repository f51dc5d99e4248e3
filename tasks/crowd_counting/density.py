"""Density maps: one Gaussian of mass one a head, so that a map's sum is a number of people.

Heads are points ``(x, y)`` in pixels, with x to the right and y down. Pixel ``(row r, column c)`` covers
``c <= x < c + 1`` and ``r <= y < r + 1``, so that an image covers ``[0, W) x [0, H)``; ShanghaiTech's points are of
this kind. A kernel is centred on the pixel that a head lies in, as public code for crowd counting does it.

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

#: What becomes of a head outside of its image. ``clamp``: it is moved to the nearest pixel of the image and counts.
#: ``drop``: it is left out and does not count. ``keep``: it stays where it is and brings what its kernel reaches of
#: the image, less than one.
Outside = Literal["clamp", "drop", "keep"]
OUTSIDE: tuple[Outside, ...] = ("clamp", "drop", "keep")

#: Where a kernel ends, in standard deviations; SciPy's ``gaussian_filter`` has the same default.
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
    """One Gaussian a head, each computed on its own window only.

    Equal to filtering an image with one pixel set, head by head, by ``scipy.ndimage.gaussian_filter(mode='constant')``,
    and adding up.

    Args:
        points: heads ``(N, 2)``, x and y in pixels; N may be 0.
        shape: height and width of the image.
        sigma: standard deviation in pixels, of all heads or one a head ``(N,)``; ``'adaptive'`` for
            :func:`adaptive_sigmas`.
        beta, k: of adaptive kernels.
        normalise: scale each kernel that the image's border cuts to mass one again, so that the sum is the number of
            heads; otherwise what lies beyond the border is lost.
        outside: what becomes of heads outside of the image, see :data:`Outside`.

    Returns:
        People a pixel, ``(H, W)``, of which none is negative.

    Raises:
        ValueError: if points, shape or sigma are not of these kinds, or not finite.

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
    window = np.ones((1, 1))  # where the whole of it lies in the image
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
        elif top < bottom and left < right:  # else kept outside, and too far away to reach the image
            down = kernel[top - row + radius : bottom - row + radius]
            along = kernel[left - column + radius : right - column + radius]
            if normalise and (within or outside == "clamp"):
                down, along = down / down.sum(), along / along.sum()
            density[top:bottom, left:right] += down[:, None] * along
    return density


def adaptive_sigmas(points: ArrayLike, shape: tuple[int, int], beta: float = 0.3, k: int = 3) -> NDArray[np.float64]:
    """Geometry-adaptive deviations: ``beta`` times the mean distance to the ``k`` nearest other heads (Zhang et al.).

    An image of fewer heads takes the neighbours there are; a single head gets a quarter of the mean of height and
    width. Heads that all lie on one point get 0: each stays in its pixel.

    Args:
        points: heads ``(N, 2)``.
        shape: height and width of the image, in pixels.
        beta: factor, above 0.
        k: neighbours, 1 or more.

    Returns:
        Pixels, ``(N,)``, all finite.
    """
    if not (math.isfinite(beta) and beta > 0) or k < 1:
        raise ValueError(f"beta is above 0 and k at least 1, got beta={beta}, k={k}; the usual ones are 0.3 and 3")
    heads = as_points(points)
    height, width = _checked_shape(shape)
    neighbours = min(k, len(heads) - 1)
    if neighbours < 1:
        return np.full(len(heads), (height + width) / 2 / 4)
    distances, _ = KDTree(heads).query(heads, k=neighbours + 1)
    return beta * distances[:, 1:].mean(1)


def as_points(points: ArrayLike) -> NDArray[np.float64]:
    """Heads as an array ``(N, 2)``, also of an empty list.

    Raises:
        ValueError: if they are not pairs of finite numbers.
    """
    try:
        heads = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"points are pairs (x, y) of numbers: {error}") from None
    if heads.size == 0:
        return np.zeros((0, 2))
    if heads.ndim != 2 or heads.shape[1] != 2:
        raise ValueError(f"points are pairs (x, y), an array (N, 2); got the shape {heads.shape}")
    if not np.isfinite(heads).all():
        raise ValueError(f"points are finite; got {heads[~np.isfinite(heads).all(1)][0].tolist()}")
    return heads


def is_inside(points: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which heads ``(N, 2)`` lie in an image of this height and width, ``(N,)``."""
    height, width = shape
    x, y = points.T
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def resolve_outside(
    points: NDArray[np.float64], shape: tuple[int, int], rule: Outside
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Heads after the rule for those outside of the image, and which of the given ones they are.

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
    """Raise ValueError for a rule that there is not."""
    if rule not in OUTSIDE:
        raise unknown_name("rule for points outside of the image", rule, OUTSIDE)


def last_below(side: int) -> float:
    """The last number below a side that is one in float32, too, so that rounding moves no head out of its picture."""
    return float(np.nextafter(np.float32(side), np.float32(0)))


def resample(density: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float64]:
    """A map at another size with the same sum: each pixel's mass goes to the pixels that it covers there, by area.

    Args:
        density: ``(H, W)``.
        shape: height and width wanted.

    Examples:
        >>> resample(np.array([[3.0, 3.0, 3.0]]), (1, 2))
        array([[4.5, 4.5]])
    """
    height, width = density.shape
    return _shares(height, shape[0]).T @ density.astype(np.float64) @ _shares(width, shape[1])


def spread(cells: NDArray[np.floating], stride: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The map of an image from that of a network: each cell's mass evenly over the pixels of the image that it covers.

    The inverse of :func:`~tasks.crowd_counting.network.sum_cells`, as far as there is one; the sum stays, also where
    the last cells reach beyond the image.

    Args:
        cells: ``(ceil(H / stride), ceil(W / stride))``.
        stride: pixels a cell.
        shape: height and width of the image.

    Raises:
        ValueError: if the image has another number of cells.
    """
    height, width = shape
    if cells.shape != (-(-height // stride), -(-width // stride)):
        raise ValueError(f"an image of {height} x {width} pixels has another number of cells than {cells.shape}")
    rows = np.minimum(stride, height - stride * np.arange(cells.shape[0]))
    columns = np.minimum(stride, width - stride * np.arange(cells.shape[1]))
    each = (cells / rows[:, None] / columns).astype(np.float32)
    return each.repeat(rows, 0).repeat(columns, 1)


def _shares(before: int, after: int) -> NDArray[np.float64]:
    """Which share of each of ``before`` equal parts of a line lies in each of ``after``, ``(before, after)``."""
    edges = np.linspace(0, before, after + 1)
    starts = np.arange(before)[:, None]
    return np.clip(np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts), 0, None)


def _kernel(sigma: float) -> NDArray[np.float64]:
    """A sampled Gaussian of sum one, ``(2 radius + 1,)``."""
    radius = int(TRUNCATE * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def _sigmas(
    heads: NDArray[np.float64], shape: tuple[int, int], sigma: float | str | NDArray[np.floating], beta: float, k: int
) -> NDArray[np.float64]:
    """The deviation of each head, ``(N,)``."""
    if isinstance(sigma, str):
        if sigma != "adaptive":
            raise ValueError(f"sigma is a number of pixels, one a head, or 'adaptive', got {sigma!r}")
        return adaptive_sigmas(heads, shape, beta, k)
    sigmas = np.asarray(sigma, dtype=np.float64)
    if not np.isfinite(sigmas).all() or (sigmas < 0).any() or sigmas.shape not in ((), (len(heads),)):
        raise ValueError(
            f"sigma is a number of pixels from 0 on, one for all heads or one for each of the {len(heads)}, or "
            f"'adaptive'; got {sigma!r}"
        )
    return np.broadcast_to(sigmas, len(heads))


def _checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in shape)
    except (TypeError, ValueError):
        raise ValueError(f"shape is the height and width of an image in pixels, got {shape!r}") from None
    if height < 1 or width < 1:
        raise ValueError(f"an image has at least one pixel, got the shape {shape!r}")
    return height, width

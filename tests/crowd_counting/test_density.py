import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from tasks.crowd_counting.density import (
    adaptive_sigmas,
    density_map,
    is_inside,
    resample,
    resolve_outside,
    spread,
)

from .drawn import block_sum

SHAPE = (120, 160)


def filtered(points, shape, sigmas):
    """The map as public code makes it: the whole image filtered once a head."""
    density = np.zeros(shape)
    for (x, y), sigma in zip(points, np.broadcast_to(sigmas, len(points)), strict=True):
        one = np.zeros(shape)
        one[int(y), int(x)] = 1
        density += gaussian_filter(one, sigma, mode="constant")
    return density


def heads(number, shape=SHAPE, margin=0, seed=0):
    height, width = shape
    return np.random.default_rng(seed).uniform((margin, margin), (width - margin, height - margin), (number, 2))


# ---------------------------------------------------------------- against a filter of the whole image


@pytest.mark.parametrize("sigma", [1.0, 2.5, 7])
def test_a_map_equals_the_whole_image_filtered_once_a_head_where_no_kernel_is_cut(sigma):
    points = heads(25, margin=30)
    expected = filtered(points, SHAPE, sigma)
    found = density_map(points, SHAPE, sigma)
    assert np.abs(found - expected).max() <= 1e-6 * expected.max()


def test_without_normalising_it_equals_the_filter_at_borders_too():
    points = heads(40)
    expected = filtered(points, SHAPE, 9)
    assert np.abs(density_map(points, SHAPE, 9, normalise=False) - expected).max() <= 1e-6 * expected.max()


def test_adaptive_kernels_equal_the_filter_with_each_heads_own_deviation():
    points = heads(30, margin=35)
    sigmas = adaptive_sigmas(points, SHAPE)
    expected = filtered(points, SHAPE, sigmas)
    found = density_map(points, SHAPE, "adaptive", normalise=False)
    assert np.abs(found - expected).max() <= 1e-6 * expected.max()
    assert np.array_equal(found, density_map(points, SHAPE, sigmas, normalise=False))


def test_adaptive_deviations_are_a_share_of_the_mean_distance_to_the_nearest_heads():
    points = heads(20)
    distances = np.sort(np.hypot(*(points[:, None] - points).transpose(2, 0, 1)), axis=1)
    assert np.allclose(adaptive_sigmas(points, SHAPE), 0.3 * distances[:, 1:4].mean(1))
    assert np.allclose(adaptive_sigmas(points, SHAPE, beta=0.5, k=5), 0.5 * distances[:, 1:6].mean(1))


# ---------------------------------------------------------------- its sum


@pytest.mark.parametrize("sigma", [0, 0.3, 4, 15, 80, "adaptive"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 500])
def test_the_sum_is_the_number_of_heads(sigma, number):
    density = density_map(heads(number, seed=number), SHAPE, sigma)
    assert density.shape == SHAPE
    assert density.min() >= 0
    assert abs(density.sum() - number) <= 1e-9 * max(number, 1)


def test_without_normalising_what_lies_beyond_the_border_is_lost():
    corner = [[0.5, 0.5]]
    assert 0.2 < density_map(corner, SHAPE, 10, normalise=False).sum() < 0.35
    assert density_map(corner, SHAPE, 10).sum() == pytest.approx(1)


@pytest.mark.parametrize("point", [(0, 0), (159.999, 0), (0, 119.999), (159.999, 119.999)])
def test_a_head_at_a_border_or_corner_is_in_the_pixel_there(point):
    density = density_map([point], SHAPE, 0)
    assert density[int(point[1]), int(point[0])] == 1


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(-50, 90), st.floats(-50, 70)), max_size=12),
    sigma=st.one_of(st.just("adaptive"), st.floats(0, 60)),
    height=st.integers(1, 40),
    width=st.integers(1, 60),
)
def test_any_heads_clamped_or_dropped_give_their_number(points, sigma, height, width):
    inside = int(is_inside(np.reshape(points, (-1, 2)).astype(float), (height, width)).sum())
    for rule, number in (("clamp", len(points)), ("drop", inside)):
        density = density_map(points, (height, width), sigma, outside=rule)
        assert np.isfinite(density).all()
        assert abs(density.sum() - number) <= 1e-6 * max(number, 1)
    assert density_map(points, (height, width), sigma, outside="keep").sum() <= len(points) + 1e-9


# ---------------------------------------------------------------- outside


def test_points_outside_are_clamped_dropped_or_kept_by_name():
    points = np.array([[-3.0, 5.0], [10.0, 10.0], [200.0, 119.0], [160.0, 60.0]])
    clamped, chosen = resolve_outside(points, SHAPE, "clamp")
    assert chosen.tolist() == [0, 1, 2, 3]
    assert np.floor(clamped).tolist() == [[0, 5], [10, 10], [159, 119], [159, 60]]
    dropped, chosen = resolve_outside(points, SHAPE, "drop")
    assert (dropped.tolist(), chosen.tolist()) == ([[10.0, 10.0]], [1])
    kept, chosen = resolve_outside(points, SHAPE, "keep")
    assert np.array_equal(kept, points)
    with pytest.raises(
        ValueError, match=r"unknown rule for points outside of the image 'wrap'.*'clamp', 'drop', 'keep'"
    ):
        density_map(points, SHAPE, outside="wrap")


def test_a_head_kept_outside_brings_what_its_kernel_reaches():
    near = density_map([[-2.0, 60.0]], SHAPE, 5, outside="keep")
    assert 0.2 < near.sum() < 0.5
    assert near[60, 0] == near.max()
    assert density_map([[-500.0, 60.0]], SHAPE, 5, outside="keep").sum() == 0


# ---------------------------------------------------------------- what is not a map


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 2, 3]], SHAPE), r"points must be pairs \(x, y\), an array \(N, 2\); got shape \(1, 3\)"),
        (([[1, math.nan]], SHAPE), "points must be finite"),
        (([["a", "b"]], SHAPE), "points must be pairs"),
        (([[1, 2]], SHAPE, -1), "sigma must be a non-negative number of pixels"),
        (([[1, 2]], SHAPE, math.inf), "sigma must be a non-negative number of pixels"),
        (([[1, 2]], SHAPE, np.ones(3)), "one for each of the 1"),
        (([[1, 2]], SHAPE, "adaptve"), "or 'adaptive', got 'adaptve'"),
        (([[1, 2]], SHAPE, "adaptive", 0.0), "beta must be above 0 and k at least 1"),
        (([[1, 2]], SHAPE, "adaptive", 0.3, 0), "beta must be above 0 and k at least 1"),
        (([[1, 2]], (0, 5)), "at least one pixel"),
        (([[1, 2]], (5,)), "shape must be the height and width"),
    ],
)
def test_what_makes_no_map_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        density_map(*arguments)


# ---------------------------------------------------------------- other sizes


def test_resampling_to_cells_is_the_block_sum():
    density = np.random.default_rng(0).random((32, 48))
    assert np.allclose(resample(density, (4, 6)), block_sum(density, 8), rtol=1e-12)


@pytest.mark.parametrize("shape", [(5, 7), (33, 20), (64, 1), (21, 34)])
def test_resampling_keeps_the_sum_at_any_size(shape):
    density = np.random.default_rng(1).random((21, 34))
    found = resample(density, shape)
    assert found.shape == shape
    assert found.sum() == pytest.approx(density.sum(), rel=1e-12)


@pytest.mark.parametrize("shape", [(16, 24), (17, 23), (3, 5)])
def test_cells_spread_over_their_pixels_keep_their_sums(shape):
    cells = np.random.default_rng(2).random((-(-shape[0] // 8), -(-shape[1] // 8)))
    pixels = spread(cells, 8, shape)
    assert pixels.shape == shape
    assert np.allclose(block_sum(pixels.astype(float), 8), cells, rtol=1e-6)
    with pytest.raises(ValueError, match="cells do not match an image"):
        spread(cells, 8, (shape[0] + 8, shape[1]))


@pytest.mark.parametrize("window", [(64, 80), (51, 77), (90, 103)])
def test_cells_may_be_summed_after_resampling_to_pixels_as_well_as_directly(window):
    density = np.random.default_rng(3).random(window)
    direct = resample(density, (8, 10))
    assert np.allclose(block_sum(resample(density, (64, 80)), 8), direct, rtol=1e-12)


def test_a_kernel_far_wider_than_the_image_needs_no_more_memory_than_it():
    points = [[1.0, 20.0], [5999.0, 20.0]]
    assert adaptive_sigmas(points, (40, 6000)).min() > 1700
    tracemalloc.start()
    try:
        density = density_map(points, (40, 6000), "adaptive")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert density.sum() == pytest.approx(2)
    assert peak < 10 * density.nbytes

import numpy as np
import pytest

from tasks.crowd_counting.box import Box, Point, box_between, count_in, draw_corners, next_corners, picture_point
from tasks.crowd_counting.overlay import Heat, draw_overlay
from tasks.showing import shown_size

#: Height and width of pictures that are shown smaller, larger, and as they are.
SHAPES = [(600, 800), (100, 240), (2000, 3333), (1, 1), (7, 5), (4001, 1601), (333, 1599)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_size_of_the_picture_on_the_overlay_is_known(shape):
    overlay = draw_overlay(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.float32), "0 people")
    strip = max(56, overlay.width // 10)
    assert shown_size(shape) == (overlay.width, overlay.height - strip)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_click_is_of_the_picture_pixel_that_is_shown_under_it(shape):
    height, width = shape
    rng = np.random.default_rng(0)
    shown_width, shown_height = shown_size(shape)
    for x, y in zip(rng.integers(0, width, 50), rng.integers(0, height, 50), strict=True):
        middle = ((x + 0.5) * shown_width / width, (y + 0.5) * shown_height / height)
        assert picture_point(middle, shape) == (x, y)


@pytest.mark.parametrize("shape", [(600, 800), (100, 240), (2000, 3333)])
def test_a_click_on_what_is_seen_is_where_it_was_in_the_picture(shape):
    height, width = shape
    pixels = np.zeros((*shape, 3), np.uint8)
    top, left, side = height // 3, 2 * width // 3, max(6, height // 20)
    pixels[top : top + side, left : left + side] = 255
    overlay = np.asarray(draw_overlay(pixels, np.zeros(shape, np.float32), "", Heat(0)))
    rows, columns = np.nonzero(overlay[: shown_size(shape)[1], :, 0] > 127)
    first = picture_point((columns.min(), rows.min()), shape)
    last = picture_point((columns.max(), rows.max()), shape)
    coarseness = max(1, round(width / overlay.shape[1]))
    assert np.abs(np.subtract(first, (left, top))).max() <= coarseness
    assert np.abs(np.subtract(last, (left + side - 1, top + side - 1))).max() <= coarseness


def test_clicks_beside_the_picture_are_of_its_nearest_pixel():
    shape = (600, 800)
    assert picture_point((400, 640), shape) == (400, 599)  # on the strip with the colour bar
    assert picture_point((-5, -5), shape) == (0, 0)
    assert picture_point((800, 600), shape) == (799, 599)


def test_a_third_click_starts_a_new_box():
    corners = ()
    seen = []
    for x in range(5):
        corners = next_corners(corners, Point(x, x))
        seen.append([corner.x for corner in corners])
    assert seen == [[0], [0, 1], [2], [2, 3], [4]]


def test_corners_of_a_box_may_come_in_any_order_and_are_in_it():
    expected = Box(2, 3, 8, 10)
    for first, second in [((2, 3), (7, 9)), ((7, 9), (2, 3)), ((7, 3), (2, 9)), ((2, 9), (7, 3))]:
        assert box_between(Point(*first), Point(*second)) == expected
    assert box_between(Point(4, 5), Point(4, 5)) == Box(4, 5, 5, 6)


def test_the_count_of_a_box_is_the_sum_of_the_density_in_it():
    density = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    assert count_in(density, Box(5, 7, 9, 8)) == pytest.approx(density[7, 5:9].sum())
    assert count_in(density, Box(0, 0, 50, 40)) == pytest.approx(density.sum(), rel=1e-6)
    halves = [count_in(density, box) for box in (Box(0, 0, 20, 40), Box(20, 0, 50, 40))]
    assert sum(halves) == pytest.approx(density.sum(), rel=1e-6)


@pytest.mark.parametrize("shape", [(600, 800), (100, 240), (2000, 3333)])
def test_the_box_is_drawn_around_the_pixels_that_are_counted(shape):
    height, width = shape
    blank = draw_overlay(np.full((*shape, 3), 90, np.uint8), np.zeros(shape, np.float32), "")
    corners = (Point(3 * width // 4, height // 4), Point(width // 4, height // 2))
    drawn = np.asarray(draw_corners(blank, corners, shape))[: shown_size(shape)[1]]
    rows, columns = np.nonzero((drawn == 255).all(2))
    seen = (*picture_point((columns.min(), rows.min()), shape),)
    seen += (*picture_point((columns.max(), rows.max()), shape),)
    expected = (width // 4, height // 4, 3 * width // 4, height // 2)
    assert np.abs(np.subtract(seen, expected)).max() <= max(1, 2 * width / blank.width)
    assert np.asarray(blank)[: drawn.shape[0]].max() == 90  # the overlay that is kept has no box


def test_one_corner_is_marked_by_a_cross_and_none_by_nothing():
    shape = (600, 800)
    blank = draw_overlay(np.full((*shape, 3), 90, np.uint8), np.zeros(shape, np.float32), "")
    drawn = np.asarray(draw_corners(blank, (Point(300, 200),), shape))
    assert (drawn[200, 300] == 255).all()
    rows, columns = np.nonzero((drawn[:600] != 90).any(2))
    assert abs(rows.mean() - 200) <= 1
    assert abs(columns.mean() - 300) <= 1
    assert draw_corners(blank, (), shape) == blank

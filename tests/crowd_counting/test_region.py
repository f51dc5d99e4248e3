import json
import os
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from PIL import Image

from tasks.crowd_counting.overlay import draw_overlay
from tasks.crowd_counting.region import MOST_CORNERS, Region

SQUARE = [[10, 5], [90, 5], [90, 60], [10, 60]]


def test_a_rectangle_and_a_polygon_of_its_corners_are_one_region(tmp_path):
    for content in (SQUARE, {"polygon": SQUARE}):
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert Region.read(str(tmp_path / "a.json")).corners == Region.read("10,5,90,60").corners


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "--region 1,2,3 is not a region; expected x0,y0,x1,y1"),
        ("a,b,c,d", "--region a,b,c,d has edges that are not numbers"),
        ("nan,0,5,5", "has no area"),
        ("10,0,5,5", "has no area: x0 must be less than x1"),
        ("5,5,5,9", "has no area"),
        ("-4,0,5,5", "has a corner at -4,0, outside of every image"),
        ("0,0,inf,5", "has a corner at inf,0"),
        ("corners.txt", "is not a region"),
        ("", "is not a region"),
    ],
)
def test_what_is_no_region_is_refused_with_what_is_one(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Region.read(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[0, 0], [9, 0]]", "has 2 corners; a polygon needs at least 3"),
        ("[[0, 0], [9, 0], [0, 9], [9, 9]]", "cross; list the corners in order around it"),
        ("[[0, 0], [5, 5], [9, 9]]", "has no area"),
        ("[[0, 0], [5, 5], [9]]", "is not a region; expected"),
        ('[[0, 0], [5, "5"], [9, 2]]', "is not a region; expected"),
        ("[[0, 0], [5, true], [9, 2]]", "is not a region; expected"),
        ("[[0, 0], [5, NaN], [9, 2]]", "is not a region; expected"),
        ("[[0, 0], [5, 1e999], [9, 2]]", "is not a region; expected"),
        ('{"points": []}', "is not a region; expected"),
        ("[" * 100_000, "is not a region"),
        ("text", "is not a region"),
        (json.dumps([[n, n * n] for n in range(MOST_CORNERS + 1)]), "has 1,001 corners, more than 1,000"),
    ],
)
def test_a_file_that_is_no_polygon_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "corners.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"corners\.json.*{re.escape(message)}"):
        Region.read(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "corners.json")
    with pytest.raises(ValueError, match=r"corners\.json is not a region: it is not a regular file"):
        Region.read(str(tmp_path / "corners.json"))


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        Region.read(str(tmp_path / "gone.json"))


def test_an_image_that_it_exceeds_is_a_problem_and_one_that_it_fills_is_not():
    region = Region.read("0,0,100,60")
    assert region.problem_with((60, 100)) == ""
    assert "reaches to 100,60, outside of the image of 99 x 60 pixels" in region.problem_with((60, 99))
    assert "outside of the image of 100 x 59 pixels" in region.problem_with((59, 100))
    assert "holds not a single pixel" in Region.read("3.6,3.6,4.4,4.4").problem_with((60, 100))


CORNERS = st.lists(st.tuples(st.floats(0, 40, width=16), st.floats(0, 30, width=16)), min_size=3, max_size=7)


@given(CORNERS)
def test_pixels_are_inside_by_their_centers(corners):
    try:
        region = Region(tuple(corners), "drawn")
    except ValueError:
        return
    columns, rows = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    centers = np.stack([columns.ravel(), rows.ravel()], 1)
    outline = Outline([*region.corners, region.corners[0]], closed=True)
    near = outline.contains_points(centers, radius=1e-6) != outline.contains_points(centers, radius=-1e-6)
    expected = outline.contains_points(centers)
    found = region.inside((30, 40)).ravel()
    assert np.array_equal(found[~near], expected[~near])


def test_two_halves_count_the_whole():
    density = np.random.default_rng(0).uniform(0, 1e-2, (61, 83)).astype(np.float32)
    upper, lower = Region(((0, 0), (83, 0), (0, 61)), ""), Region(((83, 0), (83, 61), (0, 61)), "")
    assert upper.count(density) + lower.count(density) == pytest.approx(density.sum(dtype=float))
    part = Region.read("10,5,30,25").within(density)
    assert np.array_equal(part[5:25, 10:30], density[5:25, 10:30])
    assert np.count_nonzero(part) == 400
    assert Region.read("10,5,30,25").count(density) == pytest.approx(density[5:25, 10:30].sum(dtype=float))


def test_its_outline_is_drawn_where_it_is():
    overlay = draw_overlay(np.full((600, 800, 3), 90, np.uint8), np.zeros((600, 800), np.float32), "")
    region = Region.read("200,100,600,400")
    drawn = region.draw(overlay, (600, 800))
    rows, columns = np.nonzero((np.asarray(drawn) != np.asarray(overlay)).any(2))
    for found, expected in zip(
        (columns.min(), rows.min(), columns.max(), rows.max()), (200, 100, 600, 400), strict=True
    ):
        assert abs(found - expected) <= 6
    assert isinstance(drawn, Image.Image)
    assert not ((rows > 120) & (rows < 380) & (columns > 220) & (columns < 580)).any()

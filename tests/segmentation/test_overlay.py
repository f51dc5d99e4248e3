import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.segmentation.overlay import draw_legend, draw_overlay
from tasks.segmentation.segmenter import Segmentation
from tasks.segmentation.voc import CLASSES, colours
from tasks.showing import NARROWEST, shown_size

PALETTE = colours()[:21]


def overlay(labels, pixels=None, **options):
    pixels = np.full((*labels.shape, 3), 100, np.uint8) if pixels is None else pixels
    return np.asarray(draw_overlay(pixels, Segmentation(labels, CLASSES), PALETTE, **options))


def test_background_stays_as_it_is_and_classes_take_their_colour():
    labels = np.zeros((480, 640), np.uint8)
    labels[:, 320:] = CLASSES.index("person")
    drawn = overlay(labels, opacity=0.5)
    assert (drawn[240, 100] == 100).all()
    expected = 0.5 * 100 + 0.5 * PALETTE[CLASSES.index("person")].astype(float)
    assert np.abs(drawn[240, 500] - expected).max() <= 2
    assert (drawn[240, 319] == 255).all()  # the outline


def test_without_opacity_only_outlines_are_drawn():
    labels = np.zeros((480, 640), np.uint8)
    labels[100:200, 100:200] = 3
    drawn = overlay(labels, opacity=0)[:480]
    changed = (drawn != 100).any(2)
    assert 0 < changed.sum() < 500


def test_the_legend_has_the_colour_of_each_class_that_there_is():
    labels = np.zeros((100, 100), np.uint8)
    for k, label in enumerate((7, 8, 9, 15)):
        labels[10 * k : 10 * k + 10] = label
    labels[99, 99] = 20  # a hundredth of a percent
    legend = np.asarray(draw_legend(900, Segmentation(labels, CLASSES), PALETTE))
    there = {tuple(colour) for colour in legend.reshape(-1, 3).tolist()}
    assert all(tuple(PALETTE[label].tolist()) in there for label in (7, 8, 9, 15))
    assert tuple(PALETTE[20].tolist()) not in there


@pytest.mark.parametrize("width", [NARROWEST, 1600])
def test_a_long_legend_has_more_lines_and_stays_inside(width):
    labels = np.repeat(np.arange(21, dtype=np.uint8), 10)[:, None].repeat(20, 1)
    legend = np.asarray(draw_legend(width, Segmentation(labels, CLASSES), PALETTE))
    assert legend.shape[1] == width
    assert (legend[:, -3:] == 255).all()
    assert (legend[-2:] == 255).all()
    assert legend.shape[0] > draw_legend(width, Segmentation(labels[:10], CLASSES), PALETTE).height


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700))
def test_any_size_is_drawn(height, width):
    drawn = overlay(np.zeros((height, width), np.uint8))
    across, down = shown_size((height, width))
    assert drawn.shape[1] == max(across, NARROWEST)
    assert drawn.shape[0] > down

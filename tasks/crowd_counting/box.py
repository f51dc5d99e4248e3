"""A box that is clicked on the overlay of a picture: where it is in the picture, and how many people are in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tasks.showing import shown_size


class Point(NamedTuple):
    """A pixel, by column and row."""

    x: int
    y: int


class Box(NamedTuple):
    """Pixels of the columns from left to right - 1 and the rows from top to bottom - 1."""

    left: int
    top: int
    right: int
    bottom: int


def picture_point(click: tuple[float, float], shape: tuple[int, int]) -> Point:
    """The pixel of the picture under a click on its overlay.

    Clicks beside the picture, such as on the strip below it, are of the nearest pixel.

    Args:
        click: x and y in pixels of the overlay, from its corner at the upper left.
        shape: height and width of the picture.

    Examples:
        >>> picture_point((800, 600), (3000, 4000)), picture_point((800, 1290), (3000, 4000))
        (Point(x=2000, y=1500), Point(x=2000, y=2999))
    """
    (height, width), (shown_width, shown_height) = shape, shown_size(shape)
    x, y = int(click[0] * width // shown_width), int(click[1] * height // shown_height)
    return Point(min(max(x, 0), width - 1), min(max(y, 0), height - 1))


def next_corners(corners: tuple[Point, ...], point: Point) -> tuple[Point, ...]:
    """The corners of a box after one more click; the third one starts a new box.

    Examples:
        >>> a, b, c = Point(1, 2), Point(5, 6), Point(9, 9)
        >>> next_corners((), a) == (a,), next_corners((a,), b) == (a, b), next_corners((a, b), c) == (c,)
        (True, True, True)
    """
    return (*corners, point) if len(corners) == 1 else (point,)


def box_between(first: Point, second: Point) -> Box:
    """The box of two opposite corners, in any order; the pixels of both are in it.

    Examples:
        >>> box_between(Point(7, 2), Point(3, 4))
        Box(left=3, top=2, right=8, bottom=5)
    """
    return Box(min(first.x, second.x), min(first.y, second.y), max(first.x, second.x) + 1, max(first.y, second.y) + 1)


def count_in(density: NDArray[np.float32], box: Box) -> float:
    """How many people a density ``(H, W)`` has in a box."""
    return float(density[box.top : box.bottom, box.left : box.right].sum(dtype=np.float64))


def draw_corners(overlay: Image.Image, corners: tuple[Point, ...], shape: tuple[int, int]) -> Image.Image:
    """A copy of an overlay with the box of two corners, or a cross at the only one.

    Args:
        overlay: as of :func:`~tasks.crowd_counting.overlay.draw_overlay`.
        corners: at most two, in pixels of the picture.
        shape: height and width of the picture.
    """
    drawn = overlay.copy()
    if not corners:
        return drawn
    (height, width), (shown_width, shown_height) = shape, shown_size(shape)
    across, down = shown_width / width, shown_height / height
    thick = max(2, drawn.width // 320)
    draw = ImageDraw.Draw(drawn)
    if len(corners) == 1:
        x, y = (corners[0].x + 0.5) * across, (corners[0].y + 0.5) * down
        reach = 6 * thick
        for colour, line in (("black", 3 * thick), ("white", thick)):  # seen on any picture, with any eyes
            more = thick if colour == "black" else 0
            draw.line((x - reach - more, y, x + reach + more, y), fill=colour, width=line)
            draw.line((x, y - reach - more, x, y + reach + more), fill=colour, width=line)
        return drawn
    box = box_between(*corners)
    left, top = round(box.left * across), round(box.top * down)
    right, bottom = max(left, round(box.right * across) - 1), max(top, round(box.bottom * down) - 1)
    draw.rectangle((left - thick, top - thick, right + thick, bottom + thick), outline="black", width=3 * thick)
    draw.rectangle((left, top, right, bottom), outline="white", width=thick)
    return drawn

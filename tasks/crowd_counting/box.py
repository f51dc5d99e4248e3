"""A box clicked on the overlay of an image: its position in the image, and the number of people in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tasks.showing import shown_size


class Point(NamedTuple):
    """A pixel: column and row."""

    x: int
    y: int


class Box(NamedTuple):
    """Columns ``left`` to ``right - 1`` and rows ``top`` to ``bottom - 1``, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def picture_point(click: tuple[float, float], shape: tuple[int, int]) -> Point:
    """Return the image pixel under a click on its overlay.

    Clicks beside the image, such as on the strip below it, select the nearest pixel.

    Args:
        click: x and y in pixels of the overlay, from its upper left corner.
        shape: height and width of the image.

    Examples:
        >>> picture_point((800, 600), (3000, 4000)), picture_point((800, 1290), (3000, 4000))
        (Point(x=2000, y=1500), Point(x=2000, y=2999))
    """
    (height, width), (shown_width, shown_height) = shape, shown_size(shape)
    x, y = int(click[0] * width // shown_width), int(click[1] * height // shown_height)
    return Point(min(max(x, 0), width - 1), min(max(y, 0), height - 1))


def next_corners(corners: tuple[Point, ...], point: Point) -> tuple[Point, ...]:
    """Return the corners of a box after one more click; the third click starts a new box.

    Examples:
        >>> a, b, c = Point(1, 2), Point(5, 6), Point(9, 9)
        >>> next_corners((), a) == (a,), next_corners((a,), b) == (a, b), next_corners((a, b), c) == (c,)
        (True, True, True)
    """
    return (*corners, point) if len(corners) == 1 else (point,)


def box_between(first: Point, second: Point) -> Box:
    """Return the box with two opposite corners, in any order; it includes both pixels.

    Examples:
        >>> box_between(Point(7, 2), Point(3, 4))
        Box(left=3, top=2, right=8, bottom=5)
    """
    return Box(min(first.x, second.x), min(first.y, second.y), max(first.x, second.x) + 1, max(first.y, second.y) + 1)


def count_in(density: NDArray[np.float32], box: Box) -> float:
    """Number of people that a density ``(H, W)`` has in a box."""
    return float(density[box.top : box.bottom, box.left : box.right].sum(dtype=np.float64))


def draw_corners(overlay: Image.Image, corners: tuple[Point, ...], shape: tuple[int, int]) -> Image.Image:
    """Draw the box between two corners, or a cross at a single corner, on a copy of an overlay.

    Args:
        overlay: as returned by :func:`~tasks.crowd_counting.overlay.draw_overlay`.
        corners: at most two, in pixels of the image.
        shape: height and width of the image.
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
        for colour, line in (
            ("black", 3 * thick),
            ("white", thick),
        ):  # visible on any background, also to color-blind eyes
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

"""Drawn crowds with known head positions: examples for a counter that show no real people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SKIN = ((247, 215, 190), (229, 184, 143), (198, 142, 101), (141, 94, 60), (92, 60, 40))
HAIR = ((28, 24, 22), (60, 42, 30), (110, 78, 48), (170, 160, 150), (20, 20, 30))
CLOTHES = ((190, 60, 60), (60, 90, 160), (235, 235, 230), (40, 44, 52), (90, 140, 90), (220, 180, 70), (140, 100, 150))


def draw_crowd(
    people: int, size: tuple[int, int] = (480, 640), seed: int = 0
) -> tuple[Image.Image, NDArray[np.float64]]:
    """Draw people on a square seen from above its edge: the farther away, the smaller and higher in the image.

    Args:
        people: number of people.
        size: height and width in pixels, at least 16 each.
        seed: random seed; equal seeds give equal images.

    Returns:
        The image, and the center of each head, x and y in pixels, ``(people, 2)``.

    Examples:
        >>> picture, heads = draw_crowd(12, (120, 160))
        >>> picture.size, heads.shape
        ((160, 120), (12, 2))
    """
    height, width = size
    if min(size) < 16 or people < 0:
        raise ValueError(f"a drawn crowd needs at least 0 people and 16 x 16 pixels, got {people} on {size}")
    draws = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height), (206, 200, 190))
    draw = ImageDraw.Draw(picture)
    horizon = round(0.18 * height)
    draw.rectangle((0, 0, width, horizon), fill=(158, 190, 214))
    for side in range(0, width, max(8, width // 9)):  # houses on the far side
        tall = int(draws.integers(horizon // 2, horizon + 1))
        shade = int(draws.integers(120, 180))
        draw.rectangle((side, horizon - tall, side + width // 9, horizon), fill=(shade, shade - 12, shade - 20))
    for step in range(1, 9):  # rows of paving, closer together in the distance
        edge = horizon + (height - horizon) * (step / 9) ** 1.6
        draw.line((0, edge, width, edge), fill=(190, 184, 174), width=1)
    depth = np.sort(draws.uniform(0.02, 1, people))
    heads = np.empty((people, 2))
    for number, near in enumerate(depth):
        radius = height * (0.008 + 0.022 * near)
        x = float(draws.uniform(min(radius, width / 2), max(width - radius, width / 2)))
        y = float(horizon + (height - horizon) * near * 0.82)
        heads[number] = x, min(y, height - 1.0)
        skin, hair = SKIN[draws.integers(len(SKIN))], HAIR[draws.integers(len(HAIR))]
        clothes, trousers = CLOTHES[draws.integers(len(CLOTHES))], CLOTHES[draws.integers(len(CLOTHES))]
        feet, wide = y + 7 * radius, 1.6 * radius
        draw.ellipse((x - wide, feet - 0.5 * radius, x + wide, feet + 0.5 * radius), fill=(178, 172, 162))
        draw.rectangle((x - 0.9 * radius, y + 3.6 * radius, x + 0.9 * radius, feet), fill=trousers)
        draw.rounded_rectangle(
            (x - 1.4 * radius, y + radius, x + 1.4 * radius, y + 4.4 * radius), radius=0.8 * radius, fill=clothes
        )
        draw.ellipse((x - radius, y - 1.1 * radius, x + radius, y + 1.1 * radius), fill=hair)
        draw.ellipse((x - 0.75 * radius, y - 0.6 * radius, x + 0.75 * radius, y + 1.1 * radius), fill=skin)
    return picture, heads

"""How pictures are shown: of which size, with which letters, in which colours of heat."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap
from PIL import ImageDraw, ImageFont

#: From violet to yellow. The black at the beginning is left out: on a picture it would look like dirt.
HEAT = ListedColormap(mpl.colormaps["inferno"](np.linspace(0.2, 1, 256)), "heat")

#: Widths between which overlays are drawn, in pixels: text is readable on the least, the most is quickly shown.
NARROWEST, WIDEST = 480, 1600
#: Bounds of what is shown of a picture, for ones that are much taller than wide; a JPEG has at most 65,535 rows.
MOST_PIXELS, MOST_ROWS = 20_000_000, 42_000


def shown_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which a picture is shown, without the strip.

    Args:
        shape: height and width of the picture.

    Examples:
        >>> shown_size((100, 240)), shown_size((600, 800)), shown_size((3000, 4000))
        ((480, 200), (800, 600), (1600, 1200))
    """
    height, width = shape
    factor = min(max(NARROWEST / width, 1), WIDEST / width)
    if round(width * factor) * round(height * factor) > MOST_PIXELS:
        factor = min(math.sqrt(MOST_PIXELS / (width * height)), MOST_ROWS / height)
    return max(1, round(width * factor)), max(1, round(height * factor))


@lru_cache
def font(size: int) -> Any:
    """Letters of this height, in pixels; the font has no ×."""
    return ImageFont.load_default(size)


def fitting(draw: ImageDraw.ImageDraw, label: str, room: float, size: int, least: int = 12) -> tuple[str, Any]:
    """A label, shortened if need be, and letters in which it fits.

    Args:
        draw: that measures.
        label: to write.
        room: for it, in pixels.
        size: of the letters where there is room enough.
        least: size below which the label is shortened.
    """
    size = max(least, min(size, int(size * room / max(1, draw.textlength(label, font(size))))))
    if draw.textlength(label, font(size)) > room:
        while label and draw.textlength(label + "...", font(size)) > room:
            label = label[:-1]
        label += "..."
    return label, font(size)

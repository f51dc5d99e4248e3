"""Display size, fonts and the heat color map of overlays."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap
from PIL import ImageDraw, ImageFont

#: From violet to yellow. The dark start of the color map is cut off: on an image it would look like dirt or shadow.
HEAT = ListedColormap(mpl.colormaps["inferno"](np.linspace(0.35, 1, 256)), "heat")

#: Range of overlay widths, in pixels: text stays readable at the narrowest, the widest still displays quickly.
NARROWEST, WIDEST = 480, 1600
#: Size limits for images that are much taller than wide; a JPEG has at most 65,535 rows.
MOST_PIXELS, MOST_ROWS = 20_000_000, 42_000


def shown_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which an image is displayed, without the strip below it.

    Args:
        shape: height and width of the image.

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
    """The font at this size, in pixels; it has no ×."""
    return ImageFont.load_default(size)


def fitting(draw: ImageDraw.ImageDraw, label: str, room: float, size: int, least: int = 12) -> tuple[str, Any]:
    """Fit a label into a width: return the label, shortened if necessary, and its font.

    Args:
        draw: used to measure text.
        label: text to fit.
        room: available width, in pixels.
        size: preferred font size, in pixels.
        least: smallest font size; a label that does not fit at it is shortened.
    """
    size = max(least, min(size, int(size * room / max(1, draw.textlength(label, font(size))))))
    if draw.textlength(label, font(size)) > room:
        while label and draw.textlength(label + "...", font(size)) > room:
            label = label[:-1]
        label += "..."
    return label, font(size)

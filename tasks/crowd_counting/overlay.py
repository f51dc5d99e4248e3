"""Pictures with the heat of a density on them, the count, and a colour bar."""

from __future__ import annotations

import math
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

#: Widths between which overlays are drawn, in pixels: text is readable on the least, the most is quickly shown.
NARROWEST, WIDEST = 480, 1600
#: Densities are read in people on a square of this side, in pixels.
SQUARE = 100
#: What the colour bar reaches at least, in people a square: the noise of an empty street stays dark.
LEAST = 2.0
COLOURS = mpl.colormaps["inferno"]


@dataclass(frozen=True)
class Heat:
    """How a density is drawn.

    Args:
        opacity: of the heat where it is greatest, from 0 to 1.
        top: people on a square of 100 x 100 pixels at the bright end of the colour bar; the next round number above the
            density's highest value if None.
    """

    opacity: float = 0.8
    top: float | None = None


def draw_overlay(
    pixels: NDArray[np.uint8], density: NDArray[np.float32], label: str, heat: Heat | None = None
) -> Image.Image:
    """A picture with the heat of its density, and below it a label and the colour bar.

    The density is smoothed for the eye only, by about the width of a cell.

    Args:
        pixels: RGB ``(H, W, 3)``.
        density: people a pixel, ``(H, W)``.
        label: e.g. ``'123 people'``.
        heat: how it is drawn.

    Returns:
        RGB, between 480 and 1600 pixels wide.
    """
    heat = heat or Heat()
    shown = display_density(density)
    height, width = pixels.shape[:2]
    factor = min(max(NARROWEST / width, 1), WIDEST / width)
    size = (round(width * factor), max(1, round(height * factor)))
    top = heat.top or round_top(shown)
    share = np.clip(shown / top, 0, 1)
    share = np.asarray(Image.fromarray(share.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    colours = COLOURS(share)[:, :, :3] * 255
    alpha = (heat.opacity * np.sqrt(share))[:, :, None]
    below = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    blended = Image.fromarray(np.clip(below * (1 - alpha) + colours * alpha, 0, 255).astype(np.uint8))
    strip = _strip(size[0], label, top)
    whole = Image.new("RGB", (size[0], size[1] + strip.height), "white")
    whole.paste(blended, (0, 0))
    whole.paste(strip, (0, size[1]))
    return whole


def display_density(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """People on a square of 100 x 100 pixels around each pixel, smoothed and at most 1600 pixels wide."""
    factor = max(1, math.ceil(density.shape[1] / WIDEST))
    if factor > 1:  # means of blocks; what does not fill one at the edges repeats its neighbours
        height, width = density.shape
        padded = np.pad(density, ((0, -height % factor), (0, -width % factor)), mode="edge")
        rows, columns = padded.shape[0] // factor, padded.shape[1] // factor
        density = padded.reshape(rows, factor, columns, factor).mean((1, 3))
    return gaussian_filter(density, 8 / factor) * SQUARE**2


def round_top(shown: NDArray[np.float32]) -> float:
    """The next of 1, 2, 5, 10, 20, … above the highest value of a density as displayed, 2 at least."""
    highest = max(float(shown.max(initial=0)), LEAST)
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= highest * (1 - 1e-9))


def people(count: float) -> str:
    """A count in words.

    Examples:
        >>> people(0.2), people(0.8), people(1234.4)
        ('0 people', '1 person', '1,234 people')
    """
    number = round(count)
    return f"{number:,} {'person' if number == 1 else 'people'}"


def _strip(width: int, label: str, top: float) -> Image.Image:
    """The label at the left, the colour bar with its ends and unit at the right."""
    height = max(56, width // 14)
    strip = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(strip)
    pad = height // 4
    small = ImageFont.load_default(max(12, height // 5))
    bar = max(220, width // 4)
    left, right = width - pad - bar, width - pad
    gradient = COLOURS(np.linspace(0, 1, bar))[None, :, :3] * 255
    thickness = height // 4
    strip.paste(Image.fromarray(np.repeat(gradient, thickness, 0).astype(np.uint8)), (left, pad // 2))
    line = pad // 2 + thickness + 3
    draw.text((left, line), "0", "black", font=small)
    draw.text((right, line), f"{top:g}", "black", font=small, anchor="ra")
    unit = f"people on {SQUARE} x {SQUARE} px"
    draw.text(((left + right) / 2, line), unit, "#444444", font=small, anchor="ma")
    room = left - 2 * pad
    size = height // 2
    while size > 10 and draw.textlength(label, font=ImageFont.load_default(size)) > room:
        size -= 1
    draw.text((pad, height / 2), label, "black", font=ImageFont.load_default(size), anchor="lm")
    return strip

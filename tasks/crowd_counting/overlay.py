"""Pictures with the heat of a density on them, the count, and a colour bar."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from tasks.showing import HEAT, NARROWEST, WIDEST, fitting, font, shown_size

#: Densities are read in people on a square of this side, in pixels.
SQUARE = 100
#: What the colour bar reaches at least, in people a square: the noise of an empty street stays dark.
LEAST = 2.0


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
        RGB, between 480 and 1600 pixels wide; a picture too tall to be shown at 480 is narrower, in the middle.
    """
    heat = heat or Heat()
    shown = display_density(density)
    size = shown_size((pixels.shape[0], pixels.shape[1]))
    top = heat.top or round_top(shown)
    share = np.clip(shown / top, 0, 1).astype(np.float32)
    share = np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BILINEAR))
    colours = Image.fromarray(HEAT(share, bytes=True)[:, :, :3])
    alpha = Image.fromarray(np.rint(255 * heat.opacity * np.sqrt(share)).astype(np.uint8))
    picture = Image.composite(colours, Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), alpha)
    width = max(picture.width, NARROWEST)
    strip = _strip(width, label, top)
    whole = Image.new("RGB", (width, picture.height + strip.height), "white")
    whole.paste(picture, ((width - picture.width) // 2, 0))
    whole.paste(strip, (0, picture.height))
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
    small = font(max(12, height // 5))
    bar, thickness = max(220, width // 4), height // 4
    left, right = width - pad - bar, width - pad
    line = thickness + height // 14  # from the upper edge of the bar to that of the text
    upper = (height - line - small.getbbox("0", anchor="lt")[3]) // 2
    gradient = HEAT(np.linspace(0, 1, bar), bytes=True)[None, :, :3]
    strip.paste(Image.fromarray(np.repeat(gradient, thickness, 0)), (left, upper))
    most, unit = f"{top:,g}", f"people on {SQUARE} x {SQUARE} px"  # the font has no ×
    base = upper + line + small.getbbox("0", anchor="lt")[3]
    draw.text((left, base), "0", "black", font=small, anchor="ls")
    draw.text((right, base), most, "black", font=small, anchor="rs")
    end = right - draw.textlength(most, small) - pad / 2 - draw.textlength(unit, small) / 2
    draw.text((min((left + right) / 2, end), base), unit, "#444444", font=small, anchor="ms")
    label, letters = fitting(draw, label, left - 2 * pad, height // 2)
    draw.text((pad, height / 2), label, "black", font=letters, anchor="lm")
    return strip

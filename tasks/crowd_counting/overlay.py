"""Images overlaid with a density heat map, with the count and a color bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from tasks.showing import HEAT, NARROWEST, WIDEST, fitting, font, shown_size

from .choices import OPACITY

#: Densities are displayed as people per square of this side, in pixels.
SQUARE = 100
#: Minimum upper end of the color bar, in people per square.
LEAST = 2.0
#: Below the first number of people in a square around a place nothing is drawn there, so that a fraction of a person
#: here and there does not look like people; from the second on the heat is drawn in full.
FAINT, CLEAR = 0.4, 0.5
#: From this number of people per square on, which a lone head has, the heat has at least this share of its opacity,
#: however dense the crowd elsewhere in the image is.
LONE, LEAST_OPACITY = 3.0, 0.8
#: The square for that has at least this share of the image's width, because people in large images are large.
NEAR = 0.1
#: Drawn on the overlay of an image unlike the training images.
UNFAMILIAR = "unlike its training images: do not rely on this"


@dataclass(frozen=True)
class Heat:
    """Drawing options of the heat map.

    Args:
        opacity: opacity of the heat map where it is brightest, from 0 to 1; that of a lone head is 0.8 times as high.
        top: people per 100 x 100 pixels at the bright end of the color bar; if None, the next round number above the
            density's maximum.
    """

    opacity: float = OPACITY
    top: float | None = None


def draw_overlay(
    pixels: NDArray[np.uint8],
    density: NDArray[np.float32],
    label: str,
    heat: Heat | None = None,
    warning: str | None = None,
    inside: NDArray[np.bool_] | None = None,
) -> Image.Image:
    """Draw an image with the heat map of its density, and below it a label and the color bar.

    The density is smoothed by about the width of a cell, for display only. Where there is less than about half a
    person, nothing is drawn; anyone who is counted can be seen.

    Args:
        pixels: RGB image ``(H, W, 3)``.
        density: people per pixel, ``(H, W)``.
        label: text such as ``'123 people'``.
        heat: drawing options.
        warning: text for a band below the image, such as :data:`UNFAMILIAR`; an empty text keeps its place, since
            frames of a video have one size; no band if None.
        inside: pixels to draw the heat on, ``(H, W)``; all if None.

    Returns:
        RGB image, 480 to 1600 pixels wide; an image too tall to be shown 480 pixels wide is narrower and centered.
    """
    heat = heat or Heat()
    shown = display_density(density)
    size = shown_size((pixels.shape[0], pixels.shape[1]))
    top = heat.top or round_top(shown)
    share = np.clip(shown / top, 0, 1)
    strength = np.maximum(np.sqrt(share), LEAST_OPACITY * np.sqrt(np.clip(shown / LONE, 0, 1))) * clearness(density)
    colours = Image.fromarray(HEAT(_resized(share, size), bytes=True)[:, :, :3])
    opacity = heat.opacity * _resized(strength, size)
    if inside is not None:
        opacity *= np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.NEAREST))
    alpha = Image.fromarray(np.rint(255 * opacity).astype(np.uint8))
    picture = Image.composite(colours, Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), alpha)
    width = max(picture.width, NARROWEST)
    parts = [*([] if warning is None else [_band(width, warning)]), _strip(width, label, top)]
    whole = Image.new("RGB", (width, picture.height + sum(part.height for part in parts)), "white")
    whole.paste(picture, ((width - picture.width) // 2, 0))
    below = picture.height
    for part in parts:
        whole.paste(part, (0, below))
        below += part.height
    return whole


def display_density(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """People per 100 x 100 pixels around each pixel, smoothed and reduced to at most 1600 pixels wide."""
    density, factor = _reduced(density)
    return gaussian_filter(density, 8 / factor) * SQUARE**2


def clearness(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of the heat is drawn at each place of a displayed density, 0 to 1, by the people in a square around it.

    The number is a Gaussian-weighted sum, which is that of a square with the same volume: one person amounts to one.
    """
    width = density.shape[1]
    density, factor = _reduced(density)
    side = max(SQUARE, NEAR * width) / factor  # of the square, in pixels of the reduced density
    near = gaussian_filter(density * factor**2, side / math.sqrt(2 * math.pi), mode="constant") * side**2
    return np.clip((near - FAINT) / (CLEAR - FAINT), 0, 1)


def _resized(values: NDArray[np.floating[Any]], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.array(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def _reduced(density: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Reduce a density to at most 1600 pixels wide by block means, and return it with the side of a block."""
    factor = max(1, math.ceil(density.shape[1] / WIDEST))
    if factor > 1:  # incomplete blocks at the edges are padded by repetition
        height, width = density.shape
        padded = np.pad(density, ((0, -height % factor), (0, -width % factor)), mode="edge")
        rows, columns = padded.shape[0] // factor, padded.shape[1] // factor
        density = padded.reshape(rows, factor, columns, factor).mean((1, 3))
    return density, factor


def round_top(shown: NDArray[np.float32]) -> float:
    """Next of 1, 2, 5, 10, 20, … above the maximum of a displayed density, at least 2."""
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


def people_within(count: float, error: int | None) -> str:
    """A count in words, with its expected error if that is known.

    Examples:
        >>> people_within(216.3, 24), people_within(1.2, None)
        ('216 people, ± 24', '1 person')
    """
    return people(count) + (f", ± {error:,}" if error is not None else "")


def _band(width: int, warning: str) -> Image.Image:
    """Draw a warning on a band of signal color, white without one."""
    band = Image.new("RGB", (width, max(30, width // 20)), "#FFC400" if warning else "white")
    draw = ImageDraw.Draw(band)
    text, letters = fitting(draw, warning, width - band.height, round(0.6 * band.height))
    draw.text((width / 2, band.height / 2), text, "black", font=letters, anchor="mm")
    return band


def _strip(width: int, label: str, top: float) -> Image.Image:
    """Draw the label on the left, and the color bar with its ends and unit on the right."""
    height = max(56, width // 10)
    strip = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(strip)
    pad = max(14, height // 6)
    small = font(max(12, width // 40))  # readable on a phone, which shows a wide overlay reduced
    bar, thickness = max(220, round(0.42 * width)), height // 4
    left, right = width - pad - bar, width - pad
    line = thickness + height // 14  # from the upper edge of the bar to that of the text
    upper = (height - line - small.getbbox("0", anchor="lt")[3]) // 2
    gradient = HEAT(np.linspace(0, 1, bar), bytes=True)[None, :, :3]
    strip.paste(Image.fromarray(np.repeat(gradient, thickness, 0)), (left, upper))
    most, unit = f"{top:,g}", f"people per {SQUARE} x {SQUARE} px"  # the font has no ×
    base = upper + line + small.getbbox("0", anchor="lt")[3]
    draw.text((left, base), "0", "black", font=small, anchor="ls")
    draw.text((right, base), most, "black", font=small, anchor="rs")
    end = right - draw.textlength(most, small) - pad / 2 - draw.textlength(unit, small) / 2
    draw.text((min((left + right) / 2, end), base), unit, "#444444", font=small, anchor="ms")
    label, letters = fitting(draw, label, left - 2 * pad, height // 2)
    draw.text((pad, height / 2), label, "black", font=letters, anchor="lm")
    return strip

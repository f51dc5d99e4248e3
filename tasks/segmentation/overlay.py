"""Images overlaid with the colors of their labels, and a legend."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tasks.showing import NARROWEST, fitting, font, shown_size

from .segmenter import Segmentation

#: Classes that cover less than this fraction of the image are omitted from the legend.
LEAST = 0.001
#: Name of the class that is left uncolored.
BACKGROUND = "background"


def draw_overlay(
    pixels: NDArray[np.uint8],
    segmentation: Segmentation,
    palette: NDArray[np.uint8],
    opacity: float = 0.55,
) -> Image.Image:
    """Draw an image with its labels in color and white outlines, and below it a legend with the share of each class.

    Args:
        pixels: RGB image ``(H, W, 3)``.
        segmentation: labels of the image.
        palette: colors of the labels ``(classes, 3)``.
        opacity: opacity of the colors, from 0 to 1.

    Returns:
        RGB image, 480 to 1600 pixels wide, see :func:`tasks.showing.shown_size`.
    """
    size = shown_size((pixels.shape[0], pixels.shape[1]))
    labels = np.asarray(Image.fromarray(segmentation.labels).resize(size, Image.Resampling.NEAREST))
    base = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    coloured = np.array([name != BACKGROUND for name in segmentation.classes])
    alpha = (255 * opacity * coloured[labels]).astype(np.uint8)
    picture = Image.composite(Image.fromarray(palette[labels]), base, Image.fromarray(alpha))
    picture.paste("white", mask=Image.fromarray(255 * _outlines(labels).astype(np.uint8)))
    legend = draw_legend(max(picture.width, NARROWEST), segmentation, palette)
    whole = Image.new("RGB", (legend.width, picture.height + legend.height), "white")
    whole.paste(picture, ((legend.width - picture.width) // 2, 0))
    whole.paste(legend, (0, picture.height))
    return whole


def draw_legend(width: int, segmentation: Segmentation, palette: NDArray[np.uint8]) -> Image.Image:
    """Draw colors, names and shares of the classes present, largest first, in as many lines as needed."""
    shares = {name: share for name, share in segmentation.shares.items() if share >= LEAST}
    size = max(13, width // 50)
    pad, box = size // 2, size
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    entries = []
    x, line = pad, 0
    for name, share in shares.items():
        percent = f"{100 * share:.0f}" if share >= 0.01 else "<1"
        text, letters = fitting(measure, f"{name} {percent} %", width - 3 * pad - box, size)
        length = box + pad // 2 + round(measure.textlength(text, letters))
        if x + length + pad > width and x > pad:
            x, line = pad, line + 1
        entries.append((x, line, name, text))
        x += length + 2 * pad
    legend = Image.new("RGB", (width, (line + 1) * (size + pad) + pad), "white")
    draw = ImageDraw.Draw(legend)
    for x, line, name, text in entries:
        top = pad + line * (size + pad)
        colour = "white" if name == BACKGROUND else tuple(palette[segmentation.classes.index(name)].tolist())
        draw.rectangle((x, top, x + box, top + box), fill=colour, outline="#444444")
        draw.text((x + box + pad // 2, top + box / 2), text, "black", font=font(size), anchor="lm")
    return legend


def _outlines(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask of the pixels with a different label on their right or below."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges

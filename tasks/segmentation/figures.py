"""Figures of segmentors: predictions beside the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ean_core.show.figures import save
from tasks.pictures import read_picture

from .dataset import PreparedVOC
from .overlay import draw_overlay
from .segmenter import Segmentation, Segmenter
from .voc import CLASSES, IGNORED, read_mask


def prediction_figure(segmenter: Segmenter, dataset: PreparedVOC, path: Path, number: int = 6) -> list[int]:
    """Write pictures with what is annotated and what the segmentor says, in one legend's colours.

    Args:
        segmenter: that predicts.
        dataset: prepared images.
        path: of the figure.
        number: of pictures, evenly spaced in the data set.

    Returns:
        The pictures' places in the data set.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int)).tolist()
    figure = Figure(figsize=(13, 3.9 * len(chosen)), layout="constrained", dpi=80)
    rows = figure.subplots(len(chosen), 3, squeeze=False)
    for index, axes in zip(chosen, rows, strict=True):
        entry = dataset.entries[index]
        pixels = read_picture(dataset.images / entry["image"])
        truth = read_mask(dataset.folder / entry["file"])
        found = segmenter(pixels)
        counted = truth != IGNORED
        right = np.mean(truth[counted] == found.labels[counted]) if counted.any() else 1.0
        axes[0].imshow(pixels)
        axes[0].set_title(entry["name"], loc="left")
        axes[1].imshow(_drawn(pixels, truth, segmenter))
        axes[1].set_title("annotated (borders do not count)", loc="left")
        axes[2].imshow(_drawn(pixels, found.labels, segmenter))
        axes[2].set_title(f"predicted: {100 * right:.0f} % of the pixels are right", loc="left")
        for each in axes:
            each.axis("off")
    save(figure, path)
    return chosen


def _drawn(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], segmenter: Segmenter) -> NDArray[np.uint8]:
    """An overlay of labels, in which what does not count is background."""
    shown = np.where(labels == IGNORED, CLASSES.index("background"), labels).astype(np.uint8)
    return np.asarray(draw_overlay(pixels, Segmentation(shown, segmenter.classes), segmenter.palette))

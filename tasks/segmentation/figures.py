"""Figures of segmentors: predictions beside the ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ean_core.common.text import visible
from ean_core.data.images import read_image
from ean_core.show.figures import save

from .dataset import PreparedVOC
from .overlay import draw_overlay
from .segmenter import Segmentation, Segmenter
from .voc import CLASSES, IGNORED, read_mask


def prediction_figure(segmenter: Segmenter, dataset: PreparedVOC, path: Path, number: int = 6) -> list[int]:
    """Draw images with their annotated and predicted labels, in the same colors.

    Args:
        segmenter: segmentor that predicts.
        dataset: prepared images.
        path: figure file.
        number: number of images, evenly spaced in the data set.

    Returns:
        Indices of the images in the data set.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int)).tolist()
    figure = Figure(figsize=(13, 3.9 * len(chosen)), layout="constrained", dpi=80)
    rows = figure.subplots(len(chosen), 3, squeeze=False)
    for index, axes in zip(chosen, rows, strict=True):
        entry = dataset.entries[index]
        pixels = read_image(dataset.images / entry["image"])
        truth = read_mask(dataset.folder / entry["file"])
        found = segmenter(pixels)
        counted = truth != IGNORED
        right = np.mean(truth[counted] == found.labels[counted]) if counted.any() else 1.0
        axes[0].imshow(pixels)
        axes[0].set_title(visible(entry["name"]), loc="left")
        axes[1].imshow(_drawn(pixels, truth, segmenter))
        axes[1].set_title("annotated (borders are ignored)", loc="left")
        axes[2].imshow(_drawn(pixels, found.labels, segmenter))
        axes[2].set_title(f"predicted: {100 * right:.0f} % of pixels correct", loc="left")
        for each in axes:
            each.axis("off")
    save(figure, path)
    return chosen


def _drawn(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], segmenter: Segmenter) -> NDArray[np.uint8]:
    """Draw an overlay of labels, with ignored pixels shown as background."""
    shown = np.where(labels == IGNORED, CLASSES.index("background"), labels).astype(np.uint8)
    return np.asarray(draw_overlay(pixels, Segmentation(shown, segmenter.classes), segmenter.palette))

"""Figures of counters: validation errors during training, and predictions beside the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ean_core.common.text import visible
from ean_core.runs.folder import Run
from ean_core.show.colours import COLOURS, EMPTY
from ean_core.show.figures import save
from tasks.showing import HEAT

from .counter import Counter
from .dataset import CrowdDataset
from .overlay import LEAST, display_density, people
from .prepared_file import read_prepared

WHOLE = (slice(None), slice(None))


def learning_curve(run: Run, path: Path, naive: float | None = None) -> None:
    """Plot the validation errors of a training run by epoch, marking the checkpoint that represents it.

    Args:
        run: a counter's training, which has ended, with validations.
        path: figure file; its suffix sets the format.
        naive: mean absolute error, in people, of always predicting the mean count of the training images.
    """
    validations = run.validations
    epochs = [one["epoch"] for one in validations]
    figure = Figure(figsize=(7, 4), layout="constrained", dpi=150)
    axes = figure.subplots()
    for key, label, colour in (("count/MAE", "MAE", COLOURS[0]), ("count/RMSE", "RMSE", COLOURS[1])):
        axes.plot(epochs, [one[key] for one in validations], color=colour, marker="o", markersize=3, label=label)
    if chosen := run.chosen_validation:
        point = (chosen["epoch"], chosen["count/MAE"])
        axes.plot(*point, "o", markersize=10, markerfacecolor="none", markeredgecolor=COLOURS[5])
        word = "last" if (run.record or {}).get("best") is None else "chosen"
        axes.annotate(f"{word}: {point[1]:.1f}", point, (0, -16), textcoords="offset points", ha="center")
    if naive is not None:
        axes.axhline(naive, color="#777777", linestyle="--", linewidth=1)
        text = f"MAE of always predicting the training mean: {naive:.1f}"
        axes.annotate(text, (epochs[-1], naive), (0, 4), textcoords="offset points", ha="right", color="#555555")
    axes.set_ylim(0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("error on validation images (people)")
    axes.legend(frameon=False, loc="center right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=EMPTY, linewidth=0.8)
    axes.set_axisbelow(True)
    save(figure, path)


def naive_error(training: CrowdDataset, measured: CrowdDataset) -> float:
    """Mean absolute error, in people, of predicting the training images' mean count for every measured image."""
    return float(np.mean([abs(entry["heads"] - training.mean_count) for entry in measured.entries]))


def spread_over_counts(counts: Sequence[int], number: int) -> list[int]:
    """Choose images to show: evenly spaced in rank by number of people, including the fewest and the most.

    Examples:
        >>> spread_over_counts([50, 10, 40, 20, 30], 3)
        [1, 4, 0]
    """
    order = np.argsort(counts, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int))
    return [int(order[place]) for place in places]


def prediction_figure(counter: Counter, dataset: CrowdDataset, path: Path, number: int = 6) -> list[int]:
    """Draw images with their heads, the annotated density and the predicted one, on one color scale per row.

    Args:
        counter: counter that predicts.
        dataset: whole images.
        path: figure file.
        number: number of images, see :func:`spread_over_counts`.

    Returns:
        Indices of the images in the data set.
    """
    chosen = spread_over_counts([entry["heads"] for entry in dataset.entries], number)
    figure = Figure(figsize=(13, 3.4 * len(chosen)), layout="constrained", dpi=80)
    rows = figure.subplots(len(chosen), 3, squeeze=False)
    for index, axes in zip(chosen, rows, strict=True):
        entry = dataset.entries[index]
        pixels = dataset[index]["inputs"].permute(1, 2, 0).numpy()
        points, truth = read_prepared(dataset.folder / entry["file"], WHOLE)
        count, density = counter(np.ascontiguousarray(pixels))
        shown = [display_density(truth), display_density(density)]
        top = max(LEAST, float(np.maximum(*shown).max()))
        axes[0].imshow(pixels)
        axes[0].scatter(*points.T, s=6, color="#FFD400", edgecolors="black", linewidths=0.3)
        axes[0].set_title(visible(entry["name"]), loc="left")
        _heat(axes[1], shown[0], top, f"annotated: {people(len(points))}")
        image = _heat(axes[2], shown[1], top, f"counted: {people(count)} ({count - len(points):+.1f})")
        figure.colorbar(image, ax=axes[2], label="people per 100 x 100 px", shrink=0.85)
        for each in axes:
            each.axis("off")
    save(figure, path)
    return chosen


def _heat(axes: Axes, shown: NDArray[np.float32], top: float, title: str) -> Any:
    image = axes.imshow(shown, cmap=HEAT, vmin=0, vmax=top)
    axes.set_title(title, loc="left")
    return image

"""Figure: mean and spread of the gates in each block, from a record of ``ean gates``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ean_core.scheme import ConnectionScheme
from ean_core.show.colours import COLOURS, EMPTY, INK
from ean_core.show.figures import save, style

BETWEEN_CHANNELS, BETWEEN_IMAGES = COLOURS[4], COLOURS[5]
#: Gap between stages, in blocks.
GAP = 0.6


def block_names(scheme: ConnectionScheme) -> list[str]:
    """Stage and position of each block, e.g. ``2.1`` for the first block of the second stage.

    Examples:
        >>> block_names(ConnectionScheme.parse('10-0'))
        ['1.1', '1.2', '2.1']
    """
    return [f"{k}.{i}" for k, stage in enumerate(scheme.by_stage, 1) for i in range(1, len(stage) + 1)]


def gates_figure(record: Mapping[str, Any], path: Path) -> None:
    """Plot the gates of a network block by block; blocks without attention stay empty.

    The thick bar shows ± one standard deviation between images, the thin bar ± one between channels; squares below
    the axis are filled for connected blocks, and outlined for those with a constant gate.

    Args:
        record: record written by ``ean gates``.
        path: output file; its suffix selects the format.
    """
    scheme = ConnectionScheme.parse(record["scheme"])
    places, x = [], 0.0
    for stage in scheme.by_stage:
        places += [x + i for i in range(len(stage))]
        x += len(stage) + GAP
    names = block_names(scheme)
    found = {block["block"]: block for block in record["blocks"]}
    figure = Figure(figsize=(max(5.0, 0.42 * x + 1.4), 3.6), layout="constrained", dpi=150)
    axes = figure.subplots()
    for place, name, mark in zip(places, names, scheme.marks, strict=True):
        own = found.get(name)
        axes.plot(  # a square below the axes
            place,
            -0.055,
            "s",
            markersize=9,
            markerfacecolor=COLOURS[0] if mark == "1" else EMPTY,
            markeredgecolor=EMPTY if mark == "0" else COLOURS[0],
            transform=axes.get_xaxis_transform(),
            clip_on=False,
        )
        if own is None:
            continue
        mean, channels, images = own["mean"], own["between_channels"], own["between_images"]
        axes.plot((place, place), (mean - channels, mean + channels), color=BETWEEN_CHANNELS, linewidth=2)
        axes.plot(
            (place, place), (mean - images, mean + images), color=BETWEEN_IMAGES, linewidth=7, solid_capstyle="butt"
        )
        axes.plot(place, mean, "o", color=INK, markersize=5, zorder=3)
    low = min(each["mean"] - max(each["between_channels"], each["between_images"]) for each in found.values())
    high = max(each["mean"] + max(each["between_channels"], each["between_images"]) for each in found.values())
    axes.set_ylim(min(0.0, low), max(1.0, high))
    axes.set_xlim(-0.7, places[-1] + 0.7)
    axes.set_xticks(places, names, fontsize=8)
    axes.tick_params(axis="x", length=0, pad=18)
    outlined = ", outlined if its gate is constant" if scheme.constants else ""
    axes.set_xlabel(f"block (stage.position), filled if connected{outlined}")
    axes.set_ylabel("gate")
    title = f"{record['attention']}, {record['images']:,} images"
    style(axes, "y", hidden=("top", "right", "bottom"), title=title)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=INK, label="mean"),
        Line2D([], [], color=BETWEEN_IMAGES, linewidth=7, solid_capstyle="butt", label="± between images"),
        Line2D([], [], color=BETWEEN_CHANNELS, linewidth=2, label="± between channels"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    save(figure, path)

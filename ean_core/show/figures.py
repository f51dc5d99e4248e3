"""Figures: accuracy against time (Figure 1), time increments, networks, and schemes as strips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle
from matplotlib.text import Text

from ean_core.common.text import visible
from ean_core.common.writing import replacing
from ean_core.scheme import CONSTANT, ConnectionScheme

from .colours import COLOURS, EMPTY, INK
from .table import NetworkRow


def draw_schemes(schemes: dict[str, ConnectionScheme], axes: Axes, colours: Sequence[str] = COLOURS) -> None:
    """Draw each scheme as a row of squares, one per block, with a gap between stages.

    Squares are filled for connected blocks, and outlined for those with a constant gate, which a legend then explains.
    Rows cycle through the colors; by default they match those of :func:`draw_trade` for networks in the same order.
    """
    for row, ((name, scheme), colour) in enumerate(zip(schemes.items(), cycle(colours), strict=False)):
        x = 0.0
        for stage in scheme.marks_by_stage:
            for mark in stage:
                axes.add_patch(Rectangle((x, -row - 0.35), 0.86, 0.7, **_look(mark, colour)))
                x += 1
            x += 0.5
        axes.text(-0.4, -row, name, ha="right", va="center")
    longest = max(len(s.bits) + 0.5 * (len(s.stages) - 1) for s in schemes.values())
    axes.set_xlim(-0.2, longest)
    if any(scheme.constants for scheme in schemes.values()):
        looks = {"connected": "1", "constant gate": CONSTANT}
        handles = [Patch(label=label, **_look(mark, INK)) for label, mark in looks.items()]
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 0), ncols=2, frameon=False, fontsize=8)
    axes.set_ylim(-len(schemes) + 0.4, 0.6)
    axes.set_aspect("equal")
    axes.axis("off")


def _look(mark: str, colour: str) -> dict[str, Any]:
    """Colors of a block: filled if it is connected, outlined if its gate is constant."""
    outlined = {"edgecolor": colour, "linewidth": 2} if mark == CONSTANT else {"linewidth": 0}
    return {"facecolor": colour if mark == "1" else EMPTY, **outlined}


def draw_trade(rows: Sequence[NetworkRow], axes: Axes) -> None:
    """Draw accuracy against relative inference time increment; circle areas are proportional to parameters (Figure 1).

    Args:
        rows: networks with accuracy and increment.
        axes: axes to draw on.
    """
    largest = max(row.parameters for row in rows)
    for row, colour in zip(rows, cycle(COLOURS), strict=False):
        if row.increment is None or row.accuracy is None:
            raise ValueError(f"{row.name} has no accuracy or no increment to draw")
        x = 100 * row.increment
        axes.scatter(x, row.accuracy, s=500 * row.parameters / largest, color=colour, alpha=0.85, linewidth=0)
        axes.annotate(row.name, (x, row.accuracy), (0, 15), textcoords="offset points", ha="center", va="bottom")
    axes.set_xlabel("relative inference time increment (%)")
    axes.set_ylabel("test accuracy (%)")
    axes.margins(0.25, 0.35)
    style(axes)


def draw_network(scheme: ConnectionScheme, attention: str, axes: Axes) -> None:
    """Draw a network from left to right: its blocks, and below each stage the module shared by its connected blocks.

    Blocks with a constant gate are outlined.
    """
    x = 0.0
    for k, (stage, colour) in enumerate(zip(scheme.marks_by_stage, cycle(COLOURS), strict=False)):
        centre = x + (len(stage) - 1) / 2
        used = "1" in stage
        for mark in stage:
            if mark == "1":
                axes.plot((x, centre), (-0.42, -1.5), color=colour, linewidth=2, zorder=1, solid_capstyle="round")
            axes.add_patch(_rounded(x, 0, 0.8, 0.8, **_look(mark, colour)))
            if x > 0:
                axes.plot((x - 0.6, x - 0.4), (0, 0), color="#777777", linewidth=1.5, zorder=0)
            x += 1
        axes.add_patch(_rounded(centre, -1.8, 1.5, 0.7, facecolor=colour if used else EMPTY, linewidth=0))
        axes.text(
            centre, -1.83, attention, ha="center", va="center", color="white" if used else "#777777", weight="bold"
        )
        axes.text(centre, 0.62, f"stage {k + 1}", ha="center", va="bottom", color="#555555")
        x += 0.6
        if k + 1 < len(scheme.stages):
            axes.plot((x - 1.2, x - 0.4), (0, 0), color="#777777", linewidth=1.5, zorder=0)
    axes.set_xlim(-0.6, x - 1)
    axes.set_ylim(-2.3, 1.2)
    axes.set_aspect("equal")
    axes.axis("off")


def _rounded(x: float, y: float, width: float, height: float, **look: Any) -> FancyBboxPatch:
    corner = (x - width / 2 + 0.1, y - height / 2 + 0.1)
    return FancyBboxPatch(corner, width - 0.2, height - 0.2, boxstyle="round,pad=0.1", zorder=2, **look)


def network_figure(scheme: ConnectionScheme, attention: str, path: Path) -> None:
    """Write a diagram of a network: blocks, shared modules, and the connections between them."""
    width = len(scheme.bits) + 0.6 * len(scheme.stages)
    figure = Figure(figsize=(0.5 * width, 1.9), layout="constrained", dpi=150)
    draw_network(scheme, attention, figure.subplots())
    save(figure, path)


def trade_figure(rows: Sequence[NetworkRow], title: str, path: Path) -> None:
    """Write accuracy against time of the networks with their schemes below; the suffix selects the format."""
    figure = Figure(figsize=(7, 5.6), layout="constrained", dpi=150)
    above, below = figure.subplots(2, 1, height_ratios=(3, 1))
    draw_trade(rows, above)
    _head(figure, title)
    draw_schemes({row.name: row.scheme for row in rows}, below)
    save(figure, path)


def increment_figure(rows: Sequence[NetworkRow], title: str, path: Path) -> None:
    """Write a figure of each row's increment with its 95 % interval, one line per network, first row on top."""
    figure = Figure(figsize=(7, 1.1 + 0.32 * len(rows)), layout="constrained", dpi=150)
    draw_increments(rows, figure.subplots())
    _head(figure, title)
    save(figure, path)


def _head(figure: Figure, title: str) -> None:
    """Write the title of a figure of 7 inches, in as many lines as it needs."""
    figure.suptitle(fill(title, 90), x=0.01, ha="left", fontsize=10)


def draw_increments(rows: Sequence[NetworkRow], axes: Axes) -> None:
    """Draw relative inference time increments with their intervals, one line per network.

    Args:
        rows: networks with an increment.
        axes: axes to draw on.
    """
    for y, row in enumerate(rows):
        if row.increment is None:
            raise ValueError(f"{row.name} has no increment to draw")
        x = 100 * row.increment
        if row.increment_interval:
            low, high = (100 * value for value in row.increment_interval)
            axes.plot((low, high), (y, y), color=COLOURS[0], linewidth=3, alpha=0.4, solid_capstyle="butt")
        axes.plot(x, y, "o", color=COLOURS[0], markersize=5)
        axes.annotate(f"{x:+.1f}", (x, y), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [visible(row.name).replace("$", r"\$") for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.8)
    axes.axvline(0, color="#777777", linewidth=0.8, zorder=0)
    axes.set_xlabel("relative inference time increment (%), 95 % interval")
    style(axes, "x", hidden=("top", "right", "left"))
    axes.tick_params(axis="y", length=0)


def style(
    axes: Axes, grid: Literal["both", "x", "y"] = "both", *, hidden: Sequence[str] = ("top", "right"), title: str = ""
) -> None:
    """Apply the style of all charts: light grid in the background, frame on two sides, left-aligned title."""
    axes.spines[list(hidden)].set_visible(False)
    axes.grid(axis=grid, color=EMPTY, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=10)


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically, in the format of the suffix; equal figures give equal files.

    Texts are shown as they are: ``$`` does not begin a formula. Labels of ticks are left as their axis formats them.
    """
    FigureCanvasAgg(figure)
    ticks = {id(text) for tick in figure.findobj(Tick) for text in tick.findobj(Text)}
    for text in figure.findobj(Text):
        if id(text) not in ticks:
            text.set_text(visible(text.get_text(), "\n"))
            text.set_parse_math(False)
    kind = path.suffix.removeprefix(".")
    # Reproducible files: no date, and stable ids in SVG.
    with replacing(path) as partial, mpl.rc_context({"svg.hashsalt": "ean", "svg.fonttype": "none"}):
        figure.savefig(partial, format=kind, metadata={"Date": None} if kind == "svg" else {})

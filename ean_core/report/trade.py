"""Accuracy against relative inference time increment, our networks beside the paper's (Figure 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from ean_core.show.colours import COLOURS, INK
from ean_core.show.figures import save, style

from .paper import PaperRow
from .recipes import Recipes
from .results import BORROWED, FORMS, Result

#: Colors of attention modules in every chart; the plain network is gray.
ATTENTION_COLOURS = {"": "#777777", "SE": COLOURS[0], "DIA": COLOURS[1], "SGE": COLOURS[2]}
OTHER = COLOURS[3]
#: Area of the circle for the largest network, in square points.
LARGEST = 260


def attention_colour(attention: str) -> str:
    """Color of an attention module; all unlisted modules share one."""
    return ATTENTION_COLOURS.get(attention, OTHER)


@dataclass(frozen=True)
class TradePoint:
    """A network in Figure 1.

    Args:
        source: ``here`` or ``paper``.
        data: name of the data set.
        network: the backbone.
        attention: ``SE``, ``SGE``, ``DIA`` …; empty for the plain network.
        connection: ``vanilla``, ``Org-full``, ``Share-full`` or ``EAN``.
        epochs: passes over the training images; empty for networks of the paper.
        recipe: letter of its recipe; empty if its epochs tell the recipe.
        form: ``eager`` or ``deployed``.
        scheme: its connections; empty for networks of the paper.
        parameters: number of parameters.
        accuracy: in percent, mean over seeds.
        deviation: standard deviation over seeds; None with a single seed.
        increment: relative inference time increment (Eqn 9), in percent.
        low, high: its 95 % interval; None for networks of the paper, or if too few rounds were timed.
        timed: ``own folder``, or the marked label of the record that its time is borrowed from; empty for networks of
            the paper.
    """

    source: str
    data: str
    network: str
    attention: str
    connection: str
    epochs: str
    recipe: str
    form: str
    scheme: str
    parameters: int
    accuracy: float
    deviation: float | None
    increment: float
    low: float | None
    high: float | None
    timed: str

    @property
    def panel(self) -> str:
        """Title of the panel: data set, depth, and ours or the paper's; ours with epochs and recipe."""
        parts = [self.data, self.network, "the paper" if self.source == "paper" else self.source]
        parts += [f"{self.epochs} epoch{'s' * (self.epochs != '1')}"] * bool(self.epochs)
        parts += [f"recipe {self.recipe}"] * bool(self.recipe)
        return ", ".join(parts)


def trade_points(
    rows: Sequence[Result | PaperRow], recipes: Recipes | None = None, label: Callable[[Path], str] = Path.as_posix
) -> list[TradePoint]:
    """Turn the timed rows of Table 1 into points; ours give one point per timed form.

    Args:
        rows: networks, ours and the paper's.
        recipes: names of recipes; those of the rows alone by default.
        label: names the records that times are from.
    """
    names = recipes or Recipes.of([row for row in rows if isinstance(row, Result)])
    return [point for row in rows for point in _points(row, names, label)]


def _points(row: Result | PaperRow, recipes: Recipes, label: Callable[[Path], str]) -> Iterator[TradePoint]:
    names = (row.data, row.network, row.attention, row.connection)
    if isinstance(row, PaperRow):
        if row.increment is not None and row.parameters is not None:
            parameters, accuracy = round(1e6 * row.parameters), row.metrics["accuracy/top1"]
            own = ("", "", "eager", "", parameters, accuracy, None, row.increment, None, None, "")
            yield TradePoint("paper", *(*names, *own))
        return
    values = row.values("accuracy/top1")
    deviation = stdev(values) if len(values) > 1 else None
    for form in FORMS:
        if form not in row.timings or (form == "deployed" and not row.attention):  # at 0 in either form
            continue
        timing = row.timings[form].row
        low, high = [100 * value for value in timing["increment_interval"] or ()] or (None, None)
        numbers = (row.parameters, fmean(values), deviation, 100 * timing["increment"], low, high)
        recipe = (row.epochs, recipes.letter(row), form, str(row.scheme))
        yield TradePoint("here", *(*names, *recipe, *numbers, row.timings[form].place(label)))


def panels(points: Sequence[TradePoint]) -> list[tuple[str, list[TradePoint]]]:
    """Group points into panels with titles, in order of first occurrence."""
    order = {panel: place for place, panel in reversed([*enumerate(point.panel for point in points)])}
    sorted_points = sorted(points, key=lambda point: order[point.panel])
    return [(title, list(found)) for title, found in groupby(sorted_points, key=lambda point: point.panel)]


def _name(point: TradePoint, points: Sequence[TradePoint]) -> str:
    """Name of a circle and of its deployed twin, marked if a time of either is borrowed."""
    twins = (each for each in points if (each.attention, each.scheme) == (point.attention, point.scheme))
    same = (each for each in twins if each.connection == point.connection)
    return point.connection + BORROWED * any(each.timed.startswith(BORROWED) for each in same)


def panels_figure(points: Sequence[TradePoint], path: Path) -> None:
    """Plot accuracy against time, one panel per data set and depth; circle areas are proportional to parameters.

    Args:
        points: at least one point.
        path: output file; its suffix selects the format.
    """
    found = panels(points)
    columns = min(2, len(found))
    rows = math.ceil(len(found) / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
    figure = Figure(figsize=(5.2 * columns, 3.9 * rows + 0.4), layout=layout, dpi=150)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    names = []
    for axes, (title, own) in zip(grid, found, strict=False):
        names.append((axes, own, _draw(own, axes)))
        style(axes, title=title)
    for axes in grid[len(found) :]:
        axes.axis("off")
    attentions = [name for name in ("", "SE", "SGE", "DIA") if any(point.attention == name for point in points)]
    handles = [_handle(name or "no attention", attention_colour(name)) for name in attentions]
    if any(point.form == "deployed" for point in points):
        handles += [_handle("eager", INK), _handle("deployed", INK, hollow=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.draw_without_rendering()  # fixes the axes' positions, so that labels can be placed
    figure.set_layout_engine("none")
    for axes, own, sizes in names:
        _write_names(own, sizes, axes)
    save(figure, path)


def _handle(name: str, colour: str, hollow: bool = False) -> Line2D:
    face = "white" if hollow else colour
    return Line2D([], [], marker="o", linestyle="", markersize=8, label=name, color=colour, markerfacecolor=face)


def _draw(points: Sequence[TradePoint], axes: Axes) -> list[float]:
    """Draw the circles of a panel and return their areas in square points."""
    largest = max(point.parameters for point in points)
    sizes = [LARGEST * point.parameters / largest for point in points]
    for point, size in zip(points, sizes, strict=True):
        colour = attention_colour(point.attention)
        hollow = point.form == "deployed"
        if point.deviation:
            axes.errorbar(point.increment, point.accuracy, point.deviation, color=colour, linewidth=1, zorder=1)
        axes.scatter(
            point.increment,
            point.accuracy,
            size,
            facecolor="white" if hollow else colour,
            edgecolor=colour if hollow else "white",
            linewidth=1.4 if hollow else 0.8,
            zorder=2,
        )
    axes.set_xlabel("relative inference time increment (%)")
    axes.set_ylabel("test accuracy (%)")
    axes.margins(0.16, 0.22)
    return sizes


def _write_names(points: Sequence[TradePoint], sizes: Sequence[float], axes: Axes) -> None:
    """Label each circle with its connection, where the label overlaps other items least."""
    inch = axes.figure.dpi / 72
    centres = axes.transData.transform([(point.increment, point.accuracy) for point in points])
    radii = [math.sqrt(size / math.pi) * inch for size in sizes]
    circles = [Bbox([(x - r, y - r), (x + r, y + r)]) for (x, y), r in zip(centres, radii, strict=True)]
    taken = list(circles)
    for point, (x, _) in zip(points, centres, strict=True):
        if point.deviation:
            ends = [(point.increment, point.accuracy + sign * point.deviation) for sign in (-1, 1)]
            (_, low), (_, high) = axes.transData.transform(ends)
            taken.append(Bbox([(x - inch, low), (x + inch, high)]))
    for point, (x, y), radius in zip(points, centres, radii, strict=True):
        if point.form == "deployed":  # labeled by the eager circle of the same color and height
            continue
        name = _name(point, points)
        best: tuple[float, Bbox, tuple[float, float]] | None = None
        for across, up in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            width, height = 4.8 * len(name) * inch, 9 * inch
            middle = (x + across * (radius + width / 2 + 3 * inch), y + up * (radius + height / 2 + 2 * inch))
            box = Bbox.from_bounds(middle[0] - width / 2, middle[1] - height / 2, width, height)
            cost = sum(_area(box, other) for other in taken)
            cost += 4 * (width * height - _area(box, axes.bbox))  # outside the axes
            if best is None or cost < best[0] - 1e-6:
                best = (cost, box, middle)
        assert best is not None
        taken.append(best[1])
        x, y = axes.transData.inverted().transform(best[2])
        axes.text(x, y, name, ha="center", va="center", fontsize=8, color=INK, zorder=3)


def _area(one: Bbox, other: Bbox) -> float:
    """Overlapping area of two boxes."""
    both = Bbox.intersection(one, other)
    return both.width * both.height if both is not None else 0.0

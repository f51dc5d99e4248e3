"""Figures of searches: the front of the score against cost, convergence (Figure 5), distributions (Figure 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ean_core.scheme import ConnectionScheme
from ean_core.search.front import front
from ean_core.search.strategy import Evaluation
from ean_core.show.colours import COLOURS, INK
from ean_core.show.figures import draw_schemes, save, style

#: Colors of strategies in every figure; strategies that do not learn are gray or dark.
STRATEGY_COLOURS = {
    "ean": COLOURS[0],
    "enas": COLOURS[5],
    "ga": COLOURS[2],
    "tpe": COLOURS[4],
    "local": COLOURS[1],
    "darts": COLOURS[3],
    "hsp": "#882255",
    "random": "#777777",
    "exhaustive": INK,
}
OTHER = "#8C6D31"
#: Minimum number of schemes for a histogram; fewer are drawn as single lines.
MANY = 20


@dataclass(frozen=True)
class Sampling:
    """Describe the scores of a distribution.

    Args:
        axis: axis title.
        fewest: minimum number of schemes for a meaningful standard deviation and test.
        listed: number of schemes to measure per group, if known.
    """

    axis: str = "validation accuracy (%)"
    fewest: int = 3
    listed: Mapping[str, int] = field(default_factory=dict)


#: Supernet scores, which are plentiful.
SCORES = Sampling()


def front_figure(
    evaluations: Iterable[Evaluation],
    finalists: Sequence[Evaluation],
    path: Path,
    *,
    latency: bool = False,
    fixed_norms: bool = False,
) -> None:
    """Plot the score against cost: all scored schemes, the finalists, and the schemes on their front; also the exact
    front if all possible schemes were scored.

    Args:
        evaluations: scores with the supernet's own batch norms; schemes may repeat.
        finalists: scores with batch norms re-estimated, including none and full; the best reward is marked.
        path: output file; its suffix selects the format.
        latency: the cost is the attention's time rather than the number of connections.
        fixed_norms: batch norms of the finalists are not re-estimated.
    """
    scored = list({evaluation.scheme: evaluation for evaluation in evaluations}.values())
    kept = front(finalists)
    best = max(finalists, key=lambda evaluation: evaluation.reward)
    metric = best.metric
    blocks = len(best.scheme.bits) + 0.5 * len(best.scheme.stages)
    square = 0.2 if blocks < 30 else 0.14  # inches; a row must fit its label
    width, strips = max(7.0, square * blocks + 2.5), square * (len(kept) + (best not in kept) + 1)
    figure = Figure(figsize=(width, 4.4 + strips), layout="constrained", dpi=150)
    above, below = figure.subplots(2, 1, height_ratios=(4.4, strips))
    _draw_front(scored, finalists, kept, best, above, fixed_norms)
    above.set_xlabel(cost_title(latency))
    above.xaxis.get_major_locator().set_params(integer=not latency)
    names: dict[str, ConnectionScheme] = {}
    for evaluation in [*kept, *([best] if best not in kept else [])]:
        connections = evaluation.scheme.connections
        name = f"{connections} connection{'s' * (connections != 1)}, {metric.measured(evaluation.score)}"
        names[name + " " * (name in names)] = evaluation.scheme
    draw_schemes(names, below, [COLOURS[5] if scheme == best.scheme else COLOURS[0] for scheme in names.values()])
    for text in below.texts:
        text.set_fontsize(8)
    save(figure, path)


def _draw_front(
    evaluations: list[Evaluation],
    finalists: Sequence[Evaluation],
    kept: list[Evaluation],
    best: Evaluation,
    axes: Axes,
    fixed_norms: bool,
) -> None:
    style(axes)
    axes.set_ylabel(f"validation {best.metric.axis}" + ", less is better" * best.metric.less_is_better)
    axes.scatter(
        [e.cost for e in evaluations],
        [e.score for e in evaluations],
        s=9,
        color="#999999",
        alpha=0.5,
        linewidth=0,
        label=f"as scored in the search ({len(evaluations):,} schemes)",
    )
    if has_all(evaluations):
        axes.plot(
            *_places(front(evaluations)),
            color="#777777",
            linestyle="--",
            drawstyle="steps-post",
            linewidth=1,
            label="their exact front",
        )
    others = [e for e in finalists if e not in kept]
    bars: dict[str, Any] = {"color": COLOURS[0], "elinewidth": 1.2, "zorder": 3}
    label = f"finalists{'' if fixed_norms else ', batch norms re-estimated'}, ± standard error"
    axes.errorbar(*_dodged(others, kept), _errors(others), fmt="o", markersize=3.5, alpha=0.4, label=label, **bars)
    axes.errorbar(
        *_places(kept),
        _errors(kept),
        fmt="o-",
        drawstyle="steps-post",
        linewidth=1.8,
        capsize=3,
        label="front of the finalists",
        **bars,
    )
    axes.plot(*_places([best]), "o", color=COLOURS[5], markersize=9, zorder=4)
    _name("best reward", best, 1, axes, COLOURS[5])
    for end in (ConnectionScheme.none(best.scheme.stages), ConnectionScheme.full(best.scheme.stages)):
        for evaluation in finalists:
            if evaluation.scheme == end:
                _name("full" if end.connections else "none", evaluation, -1, axes, INK)
    axes.margins(0.06, 0.12)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8, frameon=False)


def cost_title(latency: bool) -> str:
    """Axis title for the cost of a search."""
    return "attention time (ms per batch)" if latency else "connections"


def has_all(evaluations: Sequence[Evaluation]) -> bool:
    """Whether distinct schemes cover all schemes of the network."""
    return len(evaluations) == 2 ** len(evaluations[0].scheme.bits)


def _places(evaluations: Sequence[Evaluation]) -> tuple[list[float], list[float]]:
    return [e.cost for e in evaluations], [e.score for e in evaluations]


def _errors(evaluations: Sequence[Evaluation]) -> list[float]:
    return [e.standard_error for e in evaluations]


def _dodged(evaluations: list[Evaluation], kept: Sequence[Evaluation]) -> tuple[list[float], list[float]]:
    """Positions with equal costs shifted sideways to separate their error bars; those of the front stay in place.

    Sorts the evaluations by cost.
    """
    evaluations.sort(key=lambda e: (e.cost, e.scheme))
    taken = Counter(e.cost for e in kept)
    x = []
    for evaluation in evaluations:
        k = taken[evaluation.cost]
        x.append(evaluation.cost + 0.09 * (-1) ** k * ((k + 1) // 2))
        taken[evaluation.cost] += 1
    return x, [e.score for e in evaluations]


def _name(text: str, evaluation: Evaluation, side: int, axes: Axes, colour: str) -> None:
    """Label an evaluation above (``side`` 1) or below (-1) its error bar."""
    axes.annotate(
        text,
        (evaluation.cost, evaluation.score + side * evaluation.standard_error),
        (0, 8 * side),
        textcoords="offset points",
        ha="center",
        va="center",
        color=colour,
        weight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        zorder=5,
    )


def convergence_figure(
    rewards: Mapping[str, Sequence[Sequence[float]]],
    probabilities: Mapping[str, Sequence[Sequence[float]]],
    path: Path,
    *,
    budget: int,
    optimum: float | None = None,
) -> None:
    """Plot the convergence of searches: confidence of the controllers (Figure 5), and best reward so far.

    Lines are means over seeds. Bands show the range over seeds on the left, and the standard error of the mean on the
    right, where many curves overlap.

    Args:
        rewards: best reward so far after each evaluation, by strategy and seed; a single value is drawn at the end of
            the budget, which a trainer has spent by then.
        probabilities: mean probability of the sampled schemes in each step, by strategy and seed.
        path: output file; its suffix selects the format.
        budget: evaluations per search.
        optimum: highest reward of all possible schemes, if known.
    """
    figure = Figure(figsize=(10.5 if probabilities else 6, 4.8), layout="constrained", dpi=150)
    *left, right = figure.subplots(1, 2 if probabilities else 1, squeeze=False)[0]
    for axes in left:
        for name, curves in probabilities.items():
            values = _matrix(curves, min(map(len, curves)))
            _draw_curve(name, values, values.min(0), values.max(0), axes, "default")
        style(axes, title="controllers; band: all seeds")
        axes.set_xlabel("step")
        axes.set_ylabel("mean probability of sampled schemes")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(top=1.01)
    handles = []
    for name, curves in rewards.items():
        values = _matrix(curves, max(map(len, curves)))
        error = values.std(0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros(values.shape[1])
        handles.append(
            _draw_curve(name, values, values.mean(0) - error, values.mean(0) + error, right, "steps-post", budget)
        )
    if optimum is not None:
        handles.append(right.axhline(optimum, color=INK, linestyle="--", label="optimum (exhaustive)"))
    style(right, title="all strategies; band: standard error of the mean")
    right.set_xscale("log")
    right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.set_xlabel("evaluations")
    right.set_ylabel("best reward so far")
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False)
    save(figure, path)


def _matrix(curves: Sequence[Sequence[float]], length: int) -> NDArray[np.float64]:
    """One row per seed, cut or padded with its last value to a common length."""
    return np.array([[*curve[:length], *[curve[-1]] * (length - len(curve))] for curve in curves])


def _draw_curve(
    name: str,
    values: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    axes: Axes,
    style: Literal["default", "steps-post"],
    single: int = 1,
) -> Line2D:
    """Draw the mean over the rows and a band; for a single column, a dot at ``single``."""
    x, colour = np.arange(1, values.shape[1] + 1) if values.shape[1] > 1 else np.array([single]), _colour(name)
    axes.fill_between(x, low, high, step="post" if style == "steps-post" else None, color=colour, alpha=0.15, lw=0)
    dot: dict[str, Any] = {"marker": "o", "linestyle": ""} if len(x) == 1 else {}
    (line,) = axes.plot(x, values.mean(0), color=colour, label=name, linewidth=1.8, drawstyle=style, **dot)
    return line


def distribution_figure(samples: Mapping[str, Sequence[float]], path: Path, of: Sampling = SCORES) -> None:
    """Plot the distribution of scores per strategy, compared with random schemes (Figure 4).

    Each row states mean, standard deviation and the p-value of Welch's t-test against random; the latter not for
    ``exhaustive``, which covers all schemes and is not a sample.

    Args:
        samples: scores of distinct schemes, by strategy; the outline shows ``random``.
        path: output file; its suffix selects the format.
        of: description of the scores.
    """
    base = samples.get("random", ())
    order = sorted(samples, key=lambda name: name != "random")
    bins = np.histogram_bin_edges([value for values in samples.values() for value in values], bins=32)
    figure = Figure(figsize=(9, 0.8 + 0.75 * len(order)), layout="constrained", dpi=150)
    panels = figure.subplots(len(order), 1, sharex=True, squeeze=False)[:, 0]
    for name, axes in zip(order, panels, strict=True):
        values, colour = samples[name], _colour(name)
        if len(values) >= MANY:
            axes.hist(values, bins, weights=[1 / len(values)] * len(values), color=colour, alpha=0.7)
        else:
            axes.vlines(values, 0, 0.5, colour, linewidth=2, transform=axes.get_xaxis_transform())
        if base:
            axes.hist(base, bins, weights=[1 / len(base)] * len(base), color="#555555", histtype="step", linewidth=0.9)
        if len(values) >= of.fewest:
            axes.plot(np.mean(values), 0, "^", color=colour, markeredgecolor="white", markersize=10, clip_on=False)
        axes.text(-0.015, 0.1, name, transform=axes.transAxes, ha="right", color=INK, weight="bold")
        axes.text(1.015, 0.1, statement(name, values, base, of), transform=axes.transAxes, fontsize=9, linespacing=1.4)
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.set_yticks([])
        axes.tick_params(bottom=axes is panels[-1])
    outline = "outline: random schemes; " if base else ""
    panels[-1].set_xlabel(f"{of.axis} of distinct schemes; {outline}triangle: mean")
    save(figure, path)


def statement(name: str, values: Sequence[float], base: Sequence[float], of: Sampling = SCORES) -> str:
    """Mean and standard deviation of a strategy's scores and the comparison with random schemes, as two lines."""
    listed = of.listed.get(name)
    count = f"{len(values):,}{f' of {listed:,}' if listed else ''} scheme{'s' * ((listed or len(values)) != 1)}"
    if len(values) < of.fewest:
        return f"{count}:\ntoo few to compare"
    text = f"mean {np.mean(values):.2f}, sd {np.std(values, ddof=1):.2f}\n{count}"
    if name in ("random", "exhaustive") or len(base) < of.fewest:
        return text
    if len({*values}) == 1 or len({*base}) == 1:  # no variance, no test
        return text
    from scipy.stats import ttest_ind  # slow to import

    p = ttest_ind(values, base, equal_var=False).pvalue
    return f"{text}, p {'< 1e-99' if p < 1e-99 else f'= {p:.1g}'}"


def _colour(strategy: str) -> str:
    """Color of a strategy, ignoring case; all unlisted strategies share one."""
    return STRATEGY_COLOURS.get(strategy.lower(), OTHER)

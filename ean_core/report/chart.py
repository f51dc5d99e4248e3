"""Charts for a page, as plain values: what ``page.js`` draws in the width that there is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ean_core.common.record import significant
from ean_core.scheme import ConnectionScheme
from ean_core.search.strategy import Evaluation
from ean_core.show.figures import COLOURS

from .correlation import PROXIES, with_interval
from .gates import BETWEEN_CHANNELS, BETWEEN_IMAGES, INK, block_names
from .search_figures import MANY, SCORES, Sampling, in_order, statement, strategy_colour
from .trade import TradePoint, attention_colour, panels

#: Plain values of one chart; its ``kind`` is ``scatter``, ``lines`` or ``histograms``. ``whole`` says that the x axis
#: counts; ``names`` are written along it in place of numbers, from 1 on.
Chart = dict[str, Any]
#: Radius of the largest network's circle, in pixels.
LARGEST = 11
BINS = 32


def trade_charts(points: Sequence[TradePoint]) -> list[Chart]:
    """Figure 1, a chart a panel."""
    return [_trade_chart(title, own) for title, own in panels(points)]


def _trade_chart(title: str, points: Sequence[TradePoint]) -> Chart:
    largest = max(point.parameters for point in points)
    attentions = dict.fromkeys(point.attention for point in points)
    return {
        "kind": "scatter",
        "title": title,
        "x": "relative inference time increment (%)",
        "y": "test accuracy (%)",
        "legend": [
            *({"name": name or "no attention", "colour": attention_colour(name)} for name in attentions),
            *([{"name": "deployed", "colour": "#222222", "hollow": True}] if _has_deployed(points) else []),
        ],
        "points": [
            {
                "x": significant(point.increment),
                "y": significant(point.accuracy),
                "r": significant(LARGEST * math.sqrt(point.parameters / largest)),
                "colour": attention_colour(point.attention),
                "hollow": point.form == "deployed",
                "label": "" if point.form == "deployed" else point.connection,
                "bar": significant(point.deviation) if point.deviation else 0,
                "tip": _tip(point),
                "scheme": point.scheme,
            }
            for point in points
        ],
    }


def _has_deployed(points: Sequence[TradePoint]) -> bool:
    return any(point.form == "deployed" for point in points)


def _tip(point: TradePoint) -> list[str]:
    accuracy = f"{point.accuracy:.2f}" + (f" ± {point.deviation:.2f}" if point.deviation else "")
    interval = f" ({point.interval[0]:+.1f} to {point.interval[1]:+.1f})" if point.interval else ""
    return [
        f"{point.name}, {point.form}" if point.whose == "here" and point.attention else point.name,
        f"accuracy {accuracy} %",
        f"time {point.increment:+.1f} %{interval}",
        f"{point.parameters:,} parameters",
    ]


def front_chart(
    evaluations: Sequence[Evaluation], finalists: Sequence[Evaluation], kept: Sequence[Evaluation], cost: str
) -> Chart:
    """Accuracy against cost of schemes.

    Args:
        evaluations: as scored in a search, one a scheme.
        finalists: with batch norms re-estimated.
        kept: those of them on their front.
        cost: what the evaluations' cost counts.
    """
    scored, own, grey = "as scored in the search", "finalists, with norms of their own", "#999999"
    ends = {0: "none", len(finalists[0].scheme.bits): "full"}
    return {
        "kind": "scatter",
        "title": "",
        "x": cost,
        "whole": cost == "connections",
        "y": "validation accuracy (%)",
        "legend": [{"name": scored, "colour": grey}, {"name": own, "colour": COLOURS[0]}],
        "lines": [{"colour": COLOURS[0], "points": [_place(each) for each in kept]}],
        "points": [
            *({**_point(each, scored), "r": 2.5, "colour": grey} for each in evaluations),
            *(
                {**_point(each, own), "r": 5, "colour": COLOURS[0], "label": ends.get(each.scheme.connections, "")}
                for each in finalists
            ),
        ],
    }


def _place(evaluation: Evaluation) -> list[float]:
    return [significant(evaluation.cost), significant(evaluation.accuracy)]


def _point(evaluation: Evaluation, what: str) -> dict[str, Any]:
    x, y = _place(evaluation)
    accuracy = f"{evaluation.accuracy:.2f} ± {evaluation.standard_error:.2f} %"
    connections = evaluation.scheme.connections
    tip = [accuracy, f"{connections} connection{'s' * (connections != 1)}", what]
    return {"x": x, "y": y, "tip": tip, "scheme": str(evaluation.scheme)}


def correlation_charts(record: Mapping[str, Any]) -> list[Chart]:
    """What schemes reach alone against the accuracies that a supernet gives them, a chart a proxy."""
    return [
        {
            "kind": "scatter",
            "title": f"{title}: Pearson {with_interval(record['correlations'][name], 'pearson')}",
            "x": "supernet's validation accuracy (%)",
            "y": f"accuracy alone, {record['epochs']} epochs (%)",
            "legend": [{"name": "± one standard error", "colour": colour}],
            "points": [
                {
                    "x": significant(row[name]),
                    "y": significant(row["alone"]),
                    "r": 5,
                    "colour": colour,
                    "bar": significant(record["standard_error"]),
                    "tip": [f"alone {row['alone']:.2f} %", f"supernet {row[name]:.2f} %"],
                    "scheme": row["scheme"],
                }
                for row in record["schemes"]
            ],
        }
        for (name, title), colour in zip(PROXIES.items(), COLOURS, strict=False)
    ]


def gates_chart(record: Mapping[str, Any]) -> Chart:
    """Gates of a network, block after block: means, and bars of the spreads between images and between channels."""
    names = block_names(ConnectionScheme.parse(record["scheme"]))
    places = {name: number for number, name in enumerate(names, 1)}
    return {
        "kind": "scatter",
        "title": "",
        "x": "block: stage and place",
        "names": names,
        "y": "gate",
        "legend": [
            {"name": "mean", "colour": INK},
            {"name": "± between images", "colour": BETWEEN_IMAGES},
            {"name": "± between channels", "colour": BETWEEN_CHANNELS},
        ],
        "points": [
            {
                "x": places[block["block"]],
                "y": significant(block["mean"]),
                "r": 4,
                "colour": INK,
                "bar": significant(block["between_images"]),
                "barColour": BETWEEN_IMAGES,
                "thin": significant(block["between_channels"]),
                "thinColour": BETWEEN_CHANNELS,
                "tip": [
                    f"block {block['block']}: mean {block['mean']:.3f}",
                    f"between images {block['between_images']:.3f}",
                    f"between channels {block['between_channels']:.3f}",
                ],
                "scheme": record["scheme"],
            }
            for block in record["blocks"]
        ],
    }


def distribution_chart(samples: Mapping[str, Sequence[float]], of: Sampling = SCORES) -> Chart:
    """Figure 4: accuracies of each strategy's schemes, beside those of ``random``, where it is among them."""
    base = samples.get("random", ())
    edges = np.histogram_bin_edges([value for values in samples.values() for value in values], bins=BINS)

    def shares(values: Sequence[float]) -> list[float]:
        return [significant(float(count / len(values))) for count in np.histogram(values, edges)[0]]

    return {
        "kind": "histograms",
        "title": "",
        "x": of.axis,
        "edges": [significant(float(edge)) for edge in edges],
        "base": shares(base) if base else [],
        "rows": [
            {
                "name": name,
                "colour": strategy_colour(name),
                "shares": shares(samples[name]) if len(samples[name]) >= MANY else [],
                "values": [] if len(samples[name]) >= MANY else [significant(value) for value in samples[name]],
                "note": statement(name, samples[name], base, of).replace(":\n", ": ").replace("\n", "; "),
            }
            for name in in_order(samples)
        ],
    }


def lines_chart(
    title: str, x: str, y: str, curves: Mapping[str, Sequence[Sequence[float]]], *, logarithmic: bool = False
) -> Chart:
    """Means over seeds, and the band that reaches over all of them; a curve that ends early goes on as it ended.

    Args:
        title: of the chart.
        x, y: titles of its axes.
        curves: by name and seed, a value a step, from step 1 on; a single one is drawn where the longest ends.
        logarithmic: the axis of the steps.
    """
    return {
        "kind": "lines",
        "title": title,
        "x": x,
        "whole": True,
        "y": y,
        "log": logarithmic,
        "series": [{"name": name, "colour": strategy_colour(name), **_band(seeds)} for name, seeds in curves.items()],
    }


def _band(seeds: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    length = max(map(len, seeds))
    steps = list(zip(*([*curve, *[curve[-1]] * (length - len(curve))] for curve in seeds), strict=True))
    return {
        "low": [significant(min(step)) for step in steps],
        "mean": [significant(math.fsum(step) / len(step)) for step in steps],
        "high": [significant(max(step)) for step in steps],
    }

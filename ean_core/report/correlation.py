"""Figure: scores of schemes in a supernet against their scores when trained individually."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ean_core.common.tasks import Metric
from ean_core.common.text import number_of
from ean_core.show.colours import COLOURS, EMPTY
from ean_core.show.figures import save, style

#: Supernet scores in a record's schemes, and their titles.
PROXIES = {"supernet": "supernet as trained", "recalibrated": "batch norms re-estimated"}


def correlation_figure(record: Mapping[str, Any], path: Path) -> None:
    """Plot the stand-alone metric against the supernet's, one panel per proxy, with standard errors.

    Args:
        record: record written by ``ean search correlate``.
        path: output file; its suffix selects the format.
    """
    metric = Metric.of(record)
    figure = Figure(figsize=(8, 4), layout="constrained", dpi=150)
    axes = figure.subplots(1, len(PROXIES), sharey=True)
    for one, (name, title), colour in zip(axes, PROXIES.items(), COLOURS, strict=False):
        found = record["correlations"][name]
        one.errorbar(
            [row[name] for row in record["schemes"]],
            [row["alone"] for row in record["schemes"]],
            record["standard_error"],
            record["standard_error"],
            fmt="o",
            color=colour,
            ecolor=EMPTY,
            elinewidth=1.5,
        )
        coefficients = (
            f"{coefficient.title()} {found[coefficient]:.2f} ({low:.2f} to {high:.2f})"
            for coefficient in ("pearson", "spearman")
            for low, high in [found[f"{coefficient}_interval"]]
        )
        style(one, title="\n".join([title, *coefficients]))
        one.set_xlabel(f"supernet validation {metric.axis}")
    axes[0].set_ylabel(
        f"stand-alone {metric.label}, {number_of(record['epochs'], 'epoch')}" + f" ({metric.unit})" * bool(metric.unit)
    )
    save(figure, path)

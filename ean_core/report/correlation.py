"""Figure of a correlation: what a supernet says of schemes against what they reach alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ean_core.show.figures import COLOURS, EMPTY, save, style

#: Fields of a record's schemes, and how they are called.
PROXIES = {"supernet": "supernet as trained", "recalibrated": "batch norms estimated anew"}


def correlation_figure(record: Mapping[str, Any], path: Path) -> None:
    """Write stand-alone accuracy against the supernet's, one panel a proxy, with standard errors.

    Args:
        record: what ``ean search correlate`` wrote.
        path: of the picture; the format is that of the suffix.
    """
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
        one.set_xlabel("supernet's validation accuracy (%)")
    axes[0].set_ylabel(f"accuracy alone, {record['epochs']} epochs (%)")
    save(figure, path)

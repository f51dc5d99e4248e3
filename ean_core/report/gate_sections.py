"""Sections of gates: how they vary, block by block, and which became constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ean_core.show.table import Cells

from .gates import gates_figure
from .gathered import Records
from .records import slug
from .results import BORROWED, BORROWED_TEXT, find_timings
from .section import Section, of_network, rounded

FOLDS = (
    "`ean fold` puts the mean gates of a trained network, over training images, in the place of computed ones (`c` in "
    "a scheme), which cost nothing once deployed. Constants are chosen on images that the network was not trained on: "
    "of each number of computed gates, from none upward, the best scheme is tried, until one is within the margin. The "
    "result is then measured once on other images. Differences are from the network with all gates computed, paired "
    "over the same images, with 95 % intervals. Increments are over vanilla."
)


def gates_section(label: str, record: Mapping[str, Any]) -> Section:
    """Gates of a network, block by block."""
    return Section(
        f"gates_{slug(label.rpartition('gates/')[2])}".rstrip("_."),
        f"{record['attention']} gates ({record['scheme']}){of_network(record)}",
        "Variation of each connected block's gate between images and between channels. Variation between channels only "
        "could be folded into the weights; variation between images (for SGE, also between positions) is the reason to "
        f"use attention. Mean and standard deviations over {record['images']:,} images.",
        rounded(record["blocks"]),
        lambda path: gates_figure(record, path),
    )


def folds_section(records: Records) -> Section | None:
    """Networks with constants in the place of gates: on the images that chose them, and on others."""
    if not records.folds:
        return None
    rows: list[Cells] = []
    for path, each in records.folds.items():
        network = (str(each.scheme), each.record.get("parameters", 0), each.record["attention"])
        rows += each.rows(find_timings(*network, [path.parent], records.timings), records.label, path)
    marked = f" {BORROWED_TEXT}" if any(BORROWED in row["timed in"] for row in rows) else ""
    texts = [FOLDS + marked, *(each.text() for each in records.folds.values())]
    return Section("folds", "Constants in the place of gates", "\n\n".join(texts), rows)

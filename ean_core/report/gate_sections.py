"""Sections of gates: how they vary, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .gates import gates_figure
from .records import slug
from .section import Section, of_network, rounded


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

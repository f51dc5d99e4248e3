"""Recorded connection schemes, with the reliability of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .scheme import ConnectionScheme

Standing = Literal["published", "inferred", "found here"]


@dataclass(frozen=True)
class RecordedScheme:
    """A scheme selected by ``scheme='ean'``.

    ``published``: given in the paper or in the authors' code. ``inferred``: deduced from the authors' code, which does
    not state it. ``found here``: result of a search whose record is in this repository.
    """

    scheme: ConnectionScheme
    standing: Standing
    source: str


def _entry(text: str, standing: Standing, source: str) -> RecordedScheme:
    return RecordedScheme(ConnectionScheme.parse(text), standing, source)


_FOUND = (
    "benchmarks/results/campaign/search_resnet20_{}.cifar100, an exhaustive search: the finalist of highest reward "
    "that connects some blocks but not all"
)

#: By (family, depth, attention), where the family is the stem: ``imagenet`` or ``cifar``.
RECORDED: dict[tuple[str, int, str], RecordedScheme] = {
    ("imagenet", 50, "SE"): _entry(
        "010-0010-110011-001",
        "inferred",
        "the scheme in a timing line of the authors' SE file; the SGE and DIA files have the published ones there",
    ),
    ("imagenet", 50, "SGE"): _entry("100-1011-010011-011", "published", "the authors' code"),
    ("imagenet", 50, "DIA"): _entry("110-0011-110010-011", "published", "the authors' code"),
    ("cifar", 20, "SE"): _entry("010-100-000", "found here", _FOUND.format("se")),
    ("cifar", 20, "DIA"): _entry("010-100-000", "found here", _FOUND.format("dia")),
    ("cifar", 20, "SGE"): _entry("010-100-000", "found here", _FOUND.format("sge")),
    ("cifar", 164, "SE"): _entry(
        "001100000001010111-011100001000010111-101000100110000000",
        "published",
        "Table 2, EAN (b); EAN (a) is printed with the wrong number of digits",
    ),
}

"""Recorded connection schemes, with the reliability of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .scheme import ConnectionScheme

Standing = Literal["published", "inferred", "found here"]


@dataclass(frozen=True)
class RecordedScheme:
    """A scheme selected by ``scheme='ean'`` or ``scheme='ean:DATA'``.

    Args:
        scheme: the connections.
        standing: how it became known.
        source: where it stands.
        data: key of the data set on which it was found.

    ``published``: given in the paper or in the authors' code. ``inferred``: deduced from the authors' code, which does
    not state it. ``found here``: result of a search whose record is in this repository.
    """

    scheme: ConnectionScheme
    standing: Standing
    source: str
    data: str


def _entry(text: str, standing: Standing, source: str, data: str) -> RecordedScheme:
    return RecordedScheme(ConnectionScheme.parse(text), standing, source, data)


def find_recorded(family: str, depth: int, attention: str, data: str | None = None) -> RecordedScheme | None:
    """Return the scheme on record for a network on a data set, otherwise its family's; None if there is neither.

    Args:
        family: ``imagenet`` or ``cifar``.
        depth: layers of the ResNet.
        attention: name of the attention module.
        data: key of a data set; None for the family's scheme.

    Examples:
        >>> found = find_recorded("imagenet", 50, "SGE", "shanghaitech_b")
        >>> str(found.scheme), found.data
        ('100-1011-010011-011', 'imagenet')
    """
    own = RECORDED.get((family, depth, attention, data or ""))
    return own or RECORDED.get((family, depth, attention, FAMILY_DATA[family]))


def _found(depth: int, attention: str, search: str, text: str) -> tuple[str, int, str, RecordedScheme]:
    source = (
        f"benchmarks/results/campaign/search_resnet{depth}_{attention.lower()}.cifar100, {search} search: the finalist "
        "of highest reward that connects some blocks but not all"
    )
    return "cifar", depth, attention, _entry(text, "found here", source, "cifar100")


#: Data sets whose schemes serve a family's networks on data without a scheme of its own.
FAMILY_DATA = {"imagenet": "imagenet", "cifar": "cifar100"}

#: Depths of the ResNets of the family ``imagenet``; networks of any other depth are of the family ``cifar``.
IMAGENET_DEPTHS = (18, 34, 50, 101, 152)

#: By (family, depth, attention, data set), where the family is the stem: ``imagenet`` or ``cifar``. The scheme of a
#: network that ends after an earlier stage covers these stages only.
RECORDED: dict[tuple[str, int, str, str], RecordedScheme] = {
    (family, depth, attention, entry.data): entry
    for family, depth, attention, entry in (
        (
            "imagenet",
            50,
            "SE",
            _entry(
                "010-0010-110011-001",
                "inferred",
                "the scheme in a timing line of the authors' SE file; the SGE and DIA files have the published ones "
                "there",
                "imagenet",
            ),
        ),
        ("imagenet", 50, "SGE", _entry("100-1011-010011-011", "published", "the authors' code", "imagenet")),
        ("imagenet", 50, "DIA", _entry("110-0011-110010-011", "published", "the authors' code", "imagenet")),
        _found(20, "SE", "an exhaustive", "010-100-000"),
        _found(20, "DIA", "an exhaustive", "010-100-000"),
        _found(20, "SGE", "an exhaustive", "010-100-000"),
        _found(56, "SE", "a local", "110001110-100000101-100000000"),
        (
            "cifar",
            164,
            "SE",
            _entry(
                "001100000001010111-011100001000010111-101000100110000000",
                "published",
                "Table 2, EAN (b); EAN (a) is printed with the wrong number of digits",
                "cifar100",
            ),
        ),
        (
            "imagenet",
            18,
            "SE",
            _entry(
                "00-00-11",
                "found here",
                "benchmarks/results/search_resnet18_se.shanghaitech_b, an exhaustive search of a counter's 64 "
                "schemes by MAE",
                "shanghaitech_b",
            ),
        ),
    )
}

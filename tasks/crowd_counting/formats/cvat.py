"""CVAT for images: one XML file, with points and boxes. Its parser refuses entities, so that nothing expands."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from xml.parsers import expat

from ean_core.common.record import read_small

from ..density import as_points
from .base import (
    SPLITS,
    Entry,
    Listing,
    Pictures,
    Source,
    counted,
    image_name,
    number,
    pair,
    skipped_labels,
    stated_size,
)

#: Shapes of CVAT other than points and boxes.
_OTHERS = {"polygon", "polyline", "ellipse", "cuboid", "skeleton", "mask"}


def recognizes_cvat(source: Source) -> bool:
    return source.parsed(_parse).root == "annotations"


def read_cvat(source: Source, pictures: Pictures) -> Listing:
    """Read one head per point, and per box its center."""
    parsed = source.parsed(_parse)
    path = source.path
    if parsed.root != "annotations" or (parsed.tracks and not parsed.images):
        found = "CVAT for video; export the task as CVAT for images" if parsed.tracks else f"<{str(parsed.root)[:50]}>"
        raise ValueError(f"{path} is not CVAT for images: it is {found}")
    others = skipped_labels(shape["label"] for _, shapes in parsed.images for _, shape in shapes if "label" in shape)
    listing, skipped = Listing(), Counter[str]()
    for place, (image, shapes) in enumerate(parsed.images):
        where = f"{path}, image {place}"
        name = image_name(image.get("name"), where)
        heads: list[tuple[float, float]] = []
        for kind, shape in shapes:
            if shape.get("label", "") in others:
                skipped[shape.get("label", "")] += 1
            elif kind in _OTHERS:
                skipped[kind] += 1
            else:
                heads += _HEADS[kind](shape, f"{where} ({name[:100]})")
        split = SPLITS.get(image.get("subset", "").lower())
        size = stated_size(image.get("width"), image.get("height"))
        listing.entries.append(Entry(pictures.named(name, path) or name, as_points(heads), split, size))
    if skipped:
        listing.notes.append(f"shapes that are not points or boxes of people were skipped: {counted(skipped)}")
    return listing


def _points(shape: dict[str, str], where: str) -> list[tuple[float, float]]:
    return [pair(point.split(","), where) for point in shape.get("points", "").split(";") if point.strip()]


def _box(shape: dict[str, str], where: str) -> list[tuple[float, float]]:
    left, top, right, bottom = (number(shape.get(side), where) for side in ("xtl", "ytl", "xbr", "ybr"))
    return [((left + right) / 2, (top + bottom) / 2)]


_HEADS = {"points": _points, "box": _box}


class _Document:
    """The images of a file, with their shapes: tag and attributes of each."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.tracks = 0
        self.images: list[tuple[dict[str, str], list[tuple[str, dict[str, str]]]]] = []
        self._inside = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self.root is None:
            self.root = tag
        elif tag == "image":
            self.images.append((attributes, []))
            self._inside = True
        elif tag == "track":
            self.tracks += 1
        elif self._inside and (tag in _HEADS or tag in _OTHERS):
            self.images[-1][1].append((tag, attributes))

    def end(self, tag: str) -> None:
        if tag == "image":
            self._inside = False


def _parse(path: Path) -> _Document:
    """Parse a file without document type, which is where entities are declared.

    Raises:
        ValueError: if it is too large, not XML in an encoding that expat reads, or has a document type.
    """

    document = _Document()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    parser.StartElementHandler, parser.EndElementHandler = document.start, document.end
    content = read_small(path)
    try:
        parser.Parse(content, True)
    except _DoctypeError as error:
        raise ValueError(f"{path} {error}") from error
    except expat.ExpatError as error:
        raise ValueError(f"{path} cannot be read as XML: {error}") from error
    except (LookupError, ValueError) as error:  # of the codec
        raise ValueError(f"{path} cannot be read as XML in the encoding that it declares: {error}") from error
    return document


class _DoctypeError(Exception):
    """A document type."""


def _refuse(*_: Any) -> None:
    raise _DoctypeError("has a document type (<!DOCTYPE ...>), which is refused: entities can expand")

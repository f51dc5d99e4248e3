"""Points as JSON: ``{"a.jpg": [[x, y], ...]}``, or with a split ``{"a.jpg": {"points": [...], "split": "test"}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..density import as_points
from .base import Entry, Listing, Pictures, Source, image_name
from .tables import stated_split


def recognizes_json(source: Source) -> bool:
    content = source.json
    return isinstance(content, Mapping) and bool(content) and all(map(_points_of, content.values()))


def read_json(source: Source, pictures: Pictures) -> Listing:
    """Read a mapping of image names to points."""
    content = source.json
    if not isinstance(content, Mapping):
        raise ValueError(f"{source.path}: expected a mapping of image names to points, got {type(content).__name__}")
    listing = Listing()
    for name, value in content.items():
        where = f"{source.path}, {name[:100]!r}"
        entry = _points_of(value)
        if entry is None:
            raise ValueError(f"{where}: expected [[x, y], ...] or {{'points': [...], 'split': 'test'}}")
        try:
            points = as_points(entry["points"])
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{where}: {error}") from None
        listing.entries.append(Entry(image_name(name, where), points, stated_split(entry.get("split", ""), where)))
    return listing


def _points_of(value: object) -> Mapping[str, Any] | None:
    """Return the entry of an image; None if it is not one."""
    entry = value if isinstance(value, Mapping) else {"points": value}
    known = isinstance(entry.get("points"), list) and not entry.keys() - {"points", "split"}
    return entry if known else None

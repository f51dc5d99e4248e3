"""LabelMe: one JSON file per image, with points, circles or rectangles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..density import as_points
from .base import Entry, Listing, Pictures, Source, counted, image_name, items, pair, skipped_labels, stated_size


def recognizes_labelme(source: Source) -> bool:
    content = source.json
    return isinstance(content, Mapping) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read_labelme(source: Source, pictures: Pictures) -> Listing:
    """Read one head per point, circle (its center) or rectangle (its center)."""
    path, content = source.path, source.json
    if not recognizes_labelme(source):
        raise ValueError(f"{path} is not a LabelMe file: expected shapes and imagePath")
    shapes = items(content["shapes"], f"{path}, shapes")
    others = skipped_labels(str(shape.get("label", "")) for shape in shapes)
    heads, skipped = [], Counter[str]()
    for place, shape in enumerate(shapes):
        where = f"{path}, shape {place}"
        kind, corners = str(shape.get("shape_type") or "polygon"), shape.get("points")
        if str(shape.get("label", "")) in others:
            skipped[str(shape.get("label", ""))] += 1
        elif kind not in _CORNERS:
            skipped[kind] += 1
        elif not isinstance(corners, list) or len(corners) not in _CORNERS[kind]:
            raise ValueError(f"{where}: a {kind} has points {str(corners)[:50]}")
        else:
            x, y = zip(
                *(pair(corner, where) for corner in (corners if kind == "rectangle" else corners[:1])), strict=True
            )
            heads.append((sum(x) / len(x), sum(y) / len(y)))
    said = image_name(content["imagePath"], str(path))
    # The last if the image was renamed together with its annotation.
    name = pictures.named(said, path) or pictures.only(said) or pictures.of(path)
    size = stated_size(content.get("imageWidth"), content.get("imageHeight"))
    notes = [f"shapes that are not points or rectangles of people were skipped: {counted(skipped)}"] if skipped else []
    return Listing([Entry(name, as_points(heads), size=size)], notes)


#: Number of points of each shape that marks a head.
_CORNERS = {"point": (1,), "circle": (2,), "rectangle": (2, 4)}

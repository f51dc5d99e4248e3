"""JHU-CROWD++: ``gt/0001.txt`` per image, lines of x, y, width, height, occlusion and blur; ``image_labels.txt``."""

from __future__ import annotations

from pathlib import Path

from ..density import as_points
from .base import Entry, Listing, Pictures, Source, pair

#: Lists of all images and their number of heads, not annotations of one.
LABELS = "image_labels.txt"
#: Folder of the annotations.
FOLDER = "gt"


def recognizes_jhu(source: Source) -> bool:
    if source.path.name == LABELS:
        return False
    lines = [line.split() for line in source.text.splitlines() if line.strip()]
    if not lines:  # of an image without people
        return source.path.parent.name == FOLDER
    return all(
        len(line) == 6 and all(word.lstrip("-").replace(".", "", 1).isdecimal() for word in line) for line in lines
    )


def read_jhu(source: Source, pictures: Pictures) -> Listing:
    """Read one head per line, its first two numbers."""
    path, heads = source.path, []
    for place, line in enumerate(source.text.splitlines(), 1):
        words, where = line.split(), f"{path}, line {place}"
        if words and len(words) != 6:
            raise ValueError(f"{where}: expected x, y, width, height, occlusion and blur, got {line[:50]!r}")
        if words:
            heads.append(pair(words[:2], where))
    return Listing([Entry(pictures.of(path), as_points(heads), number=_stated(path, pictures))])


def _stated(path: Path, pictures: Pictures) -> int | None:
    """Number of heads by ``image_labels.txt``, lines of which begin with name and number."""
    line = pictures.listed(path.parent.parent / LABELS).get(path.stem, "")
    text = line.split(",")[1].strip() if "," in line else ""
    return int(text) if text.isdecimal() and len(text) < 10 else None

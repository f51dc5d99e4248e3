"""NWPU-Crowd: ``jsons/0001.json`` per image, with ``points``; lists ``train.txt``, ``val.txt``, ``test.txt``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..density import as_points
from .base import Entry, Listing, Pictures, Source, image_name, pair


def recognizes_nwpu(source: Source) -> bool:
    content = source.json
    return (
        isinstance(content, Mapping)
        and isinstance(content.get("points"), list)
        and bool(content.keys() & {"img_id", "human_num", "boxes"})
    )


def read_nwpu(source: Source, pictures: Pictures) -> Listing:
    """Read ``points``; ``boxes``, which enclose the same heads, are not needed."""
    path, content = source.path, source.json
    if not isinstance(content, Mapping) or not isinstance(content.get("points"), list):
        raise ValueError(f"{path} is not an NWPU-Crowd annotation: expected points")
    points = [pair(point, str(path)) for point in content["points"]]
    total = content.get("human_num")
    stated = total if isinstance(total, int) and not isinstance(total, bool) and 0 <= total < 10**9 else None
    name = content.get("img_id")
    stem = Path(image_name(name, str(path))).stem if name is not None else path.stem
    return Listing([Entry(pictures.of(path, stem), as_points(points), _split(path, pictures), number=stated)])


def _split(path: Path, pictures: Pictures) -> str | None:
    """Split of an image by the lists next to the folder of annotations, lines of which begin with its number."""
    above = path.parent.parent
    return next(
        (name for name in ("train", "val", "test") if path.stem in pictures.listed(above / f"{name}.txt")), None
    )

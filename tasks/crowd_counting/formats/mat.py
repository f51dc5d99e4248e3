"""MATLAB files per image: UCF-QNRF's ``img_0001_ann.mat``, ShanghaiTech's ``image_info``, or a plain N x 2 matrix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.matlab import read_matlab

from ..density import as_points
from .base import Entry, Listing, Pictures, Source

#: Variables and fields with points, in order of preference.
NAMES = ("annPoints", "image_info", "location", "points")


def recognizes_qnrf(source: Source) -> bool:
    return source.path.stem.lower().endswith("_ann")


def recognizes_mat(source: Source) -> bool:
    return True


def read_mat(source: Source, pictures: Pictures) -> Listing:
    """Read the N x 2 matrix ``annPoints``, that inside ``image_info``, or the only one."""
    path = source.path
    try:
        content = read_matlab(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a .mat file: {error}") from error
    matrices = dict(_matrices(content))
    first = next((name for want in NAMES for name in matrices if want in name.split(".")), None)
    if first is None and len(matrices) == 1:
        (first,) = matrices
    if first is None:
        found = ", ".join(sorted(matrices)[:5]) or "none"
        raise ValueError(f"{path} has no N x 2 matrix of points named annPoints or image_info; matrices: {found}")
    points = as_points(matrices[first])
    stated = _number(content, first)
    stem = path.stem
    shorter = (stem, re.sub(r"(?i)_ann$|^gt_", "", stem))
    return Listing([Entry(pictures.of(path, *dict.fromkeys(reversed(shorter))), points, number=stated)])


def _matrices(value: Any, name: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield dotted names and values of the N x 2 matrices in a file, also in cells and structures."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _matrices(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _matrices(part, name)
    elif isinstance(value, np.ndarray) and value.ndim == 2 and (value.shape[1] == 2 or value.size == 0):
        yield name, value


def _number(content: Any, name: str) -> int | None:
    """Number next to ``location`` in ShanghaiTech's structures."""
    if not name.endswith("location"):
        return None
    value: Any = content
    for key in (*name.split(".")[:-1], "number"):
        while isinstance(value, list):
            value = value[0] if value else None
        value = value.get(key) if isinstance(value, Mapping) else None
    number = np.asarray(value).ravel() if isinstance(value, np.ndarray) else np.zeros(0)
    return int(number[0]) if len(number) and 0 <= number[0] < 10**9 else None

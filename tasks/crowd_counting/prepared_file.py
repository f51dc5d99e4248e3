"""The HDF5 file of a prepared image: points, density, and what they were made from."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ean_core.data.images import MAX_PIXELS

#: Rows and columns of an HDF5 chunk, so that a crop reads only a few chunks.
BLOCK = 256
#: Maximum number of heads of an image.
MAX_HEADS = 1_000_000


def read_prepared(path: Path, part: tuple[slice, slice] | None = None) -> tuple[NDArray[np.float64], Any]:
    """Read the points ``(N, 2)`` of a prepared file, and a rectangle of its density, ``(h, w)`` float32.

    Args:
        path: prepared file.
        part: rows and columns of the density to read; None skips the density.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no prepared file at {path}; run `ean crowd prepare` again")
    try:
        with h5py.File(path, "r") as file:
            _refuse_elsewhere(file)
            _refuse_expanding(file, part)
            points = file["points"][()].astype(np.float64)
            return points, None if part is None else file["density"][part]
    except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; delete it and run `ean crowd prepare` again") from error


def _refuse_elsewhere(file: h5py.File) -> None:
    """Refuse links to other files: HDF5 would follow them, even to the raw bytes of any file."""
    for name in ("points", "density"):
        link = file.get(name, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name} is a link to another location")
        if link is not None and not (isinstance(file[name], h5py.Dataset) and file[name].dtype.kind in "fiu"):
            raise ValueError(f"{name} is not a data set of numbers")
        if link is not None and (file[name].external or file[name].is_virtual):
            raise ValueError(f"{name} is stored in another file")


def _refuse_expanding(file: h5py.File, part: tuple[slice, slice] | None) -> None:
    """Refuse data sets unlike those of :func:`packed`: compressed, a kilobyte can be a gigabyte."""
    for name, most in (("points", 2 * MAX_HEADS), ("density", MAX_PIXELS)):
        values = file[name]
        if values.ndim != 2:
            raise ValueError(f"{name} has shape {values.shape}, expected two dimensions")
        if values.size > most:
            raise ValueError(f"{name} has {values.size:,} values, more than any image may have")
    if file["points"].chunks:
        raise ValueError("points are compressed or in blocks")
    density = file["density"]
    if part is None or not density.chunks:
        return
    blocks = _blocks(density.shape)
    if density.chunks != blocks:
        raise ValueError(f"density has blocks of {density.chunks}, expected {blocks}")
    ranges = (which.indices(size) for which, size in zip(part, density.shape, strict=True))
    rows, columns = (range(low - low % step, high, step) for (low, high, _), step in zip(ranges, blocks, strict=True))
    raw = math.prod(blocks) * density.dtype.itemsize
    most = raw + raw // 64 + 1024  # what cannot be compressed grows a little
    for corner in product(rows, columns):  # HDF5 decompresses a block until it ends, however large it becomes
        stored = density.id.get_chunk_info_by_coord(corner).size or 0
        if stored > most:
            raise ValueError(f"density has a block of {stored:,} compressed bytes, expected at most {most:,}")


def _blocks(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the size of the HDF5 chunks of a density of this shape."""
    return min(BLOCK, shape[0]), min(BLOCK, shape[1])


def packed(
    points: NDArray[np.float64], density: NDArray[np.float32], source: Mapping[str, Any], entry: Mapping[str, Any]
) -> bytes:
    """Build an HDF5 file in memory: on a full disk, HDF5 itself prints errors, and retries when the process ends."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["points"] = points
        options = {"chunks": _blocks(density.shape), "compression": "gzip", "compression_opts": 4, "shuffle": True}
        file.create_dataset("density", data=density, **options)
        file.attrs["source"] = json.dumps(source, sort_keys=True)
        file.attrs["entry"] = json.dumps(entry, sort_keys=True)
    return content.getvalue()


def unchanged_entry(path: Path, source: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the entry of an earlier run if its file is complete and has the same image, annotation and kernel."""
    if not path.is_file():
        return None
    try:
        with h5py.File(path, "r") as file:
            if any(file.attrs.get_id(name).shape != () for name in ("source", "entry")):  # not one text each
                return None
            if json.loads(file.attrs["source"]) != source:
                return None
            entry = json.loads(file.attrs["entry"])
            whole = file["density"].shape == (entry["height"], entry["width"]) and "points" in file
    except (OSError, LookupError, RecursionError, RuntimeError, TypeError, ValueError):
        return None
    return entry if whole else None

"""Read untrusted MATLAB files of version 7.3, which are HDF5: no other files are opened, and no block may expand."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

#: The beginning of an HDF5 file, after a block of MATLAB's own.
_SIGNATURE, _OWN_BLOCK = b"\x89HDF\r\n\x1a\n", 512
#: HDF5's numbers of the filters that MATLAB uses.
_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
#: Largest number of HDF5 blocks of an array.
_BLOCKS = 10_000


def is_hdf5(path: Path) -> bool:
    """Whether a MATLAB file has version 7.3."""
    with path.open("rb") as file:
        file.seek(_OWN_BLOCK)
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def read_matlab73(path: Path, most: int, arrays: int, depth: int) -> dict[str, Any]:
    """Read the variables of a file of version 7.3, in the form of :func:`~tasks.matlab.read_matlab`.

    Args:
        path: the file.
        most: maximum number of bytes of numbers.
        arrays: maximum number of arrays.
        depth: maximum nesting depth.

    Raises:
        ValueError: if it is damaged, refers to other files, or exceeds a limit.
    """
    try:
        with h5py.File(path, "r") as file:
            reader = _Reader(file, most, arrays)
            return {name: reader.linked(file, name, depth) for name in file if not name.startswith("#")}
    except (KeyError, OSError, OverflowError, RuntimeError, TypeError) as error:
        raise ValueError(f"damaged file of version 7.3: {error}") from error


class _Reader:
    """Reads the arrays of one file, within its limits."""

    def __init__(self, file: h5py.File, most: int, arrays: int) -> None:
        self.file, self.bytes, self.arrays = file, most, arrays

    def linked(self, group: h5py.Group, name: str, depth: int) -> Any:
        """Value under a name of a group."""
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):  # HDF5 would follow it to any file
            raise ValueError(f"{name} is a link to another location")
        return self.value(group[name], depth)

    def value(self, item: Any, depth: int) -> Any:
        """Value of a data set or group."""
        self.arrays -= 1
        if depth < 0 or self.arrays < 0:
            raise ValueError("too many or too deeply nested arrays")
        if isinstance(item, h5py.Group):
            return [{name: self.linked(item, name, depth - 1) for name in item}]
        if not isinstance(item, h5py.Dataset):
            raise ValueError(f"expected an array, found a {type(item).__name__}")
        kind = item.attrs.get("MATLAB_class", b"")
        if kind in (b"char", "char") or "MATLAB_sparse" in item.attrs:
            return None
        if item.dtype == h5py.ref_dtype:
            return [self.value(self.file[reference], depth - 1) for reference in self._stored(item).ravel()]
        if item.dtype.kind not in "fiu":
            return None
        stored = self._stored(item)
        if "MATLAB_empty" in item.attrs:  # its values are its size
            return np.zeros([int(size) for size in stored.ravel()[:2]] if not np.prod(stored) else (0, 0))
        return stored.T  # MATLAB's order

    def _stored(self, item: h5py.Dataset) -> NDArray[Any]:
        """Read a data set without letting HDF5 expand or open anything."""
        if item.external or item.is_virtual:
            raise ValueError(f"{item.name} is stored in another file")
        if item.shape is None or not 0 < item.ndim <= 32:
            raise ValueError(f"{item.name} has shape {item.shape}")
        size = math.prod(item.shape) * item.dtype.itemsize
        self.bytes -= size
        if self.bytes < 0:
            raise ValueError(f"{item.name} has {size:,} bytes, more than the limit")
        if item.dtype == h5py.ref_dtype and math.prod(item.shape) > self.arrays:
            raise ValueError(f"{item.name} claims {math.prod(item.shape):,} parts, more than the limit")
        return self._from_blocks(item) if item.chunks else item[()]

    def _from_blocks(self, item: h5py.Dataset) -> NDArray[Any]:
        plan = item.id.get_create_plist()
        filters = [plan.get_filter(k)[0] for k in range(plan.get_nfilters())]
        if not filters:
            return item[()]
        if item.dtype == h5py.ref_dtype or filters not in ([_DEFLATE], [_SHUFFLE, _DEFLATE]):
            raise ValueError(f"{item.name} is compressed in a way that MATLAB does not use")
        length = math.prod(item.chunks) * item.dtype.itemsize
        number = math.prod(-(-size // step) for size, step in zip(item.shape, item.chunks, strict=True))
        if number > _BLOCKS or length > self.bytes + math.prod(item.shape) * item.dtype.itemsize:
            raise ValueError(f"{item.name} has {number:,} blocks of {length:,} bytes, more than the limit")
        values = np.zeros(item.shape, item.dtype)
        for k in range(item.id.get_num_chunks()):
            corner = item.id.get_chunk_info(k).chunk_offset
            mask, packed = item.id.read_direct_chunk(corner)
            block = _unpacked(packed, length, item, filters, mask)
            place = tuple(slice(low, low + step) for low, step in zip(corner, item.chunks, strict=True))
            part = values[place]
            part[...] = block[tuple(slice(size) for size in part.shape)]
        return values


def _unpacked(packed: bytes, length: int, item: h5py.Dataset, filters: list[int], mask: int) -> NDArray[Any]:
    """Decompress a block of ``length`` bytes; bit k of ``mask`` tells that filter k was not applied."""
    raw = packed
    if not mask >> filters.index(_DEFLATE) & 1:
        try:
            raw = zlib.decompressobj().decompress(packed, length + 1)
        except zlib.error as error:
            raise ValueError(f"a block of {item.name} is damaged: {error}") from error
    if len(raw) != length:
        raise ValueError(f"a block of {item.name} does not have {length:,} bytes")
    if _SHUFFLE in filters and not mask >> filters.index(_SHUFFLE) & 1:
        raw = np.frombuffer(raw, np.uint8).reshape(item.dtype.itemsize, -1).T.tobytes()
    return np.frombuffer(raw, item.dtype).reshape(item.chunks)

"""Read untrusted MATLAB files in pure Python: SciPy's reader trusts a file's own sizes and crashes on damaged files.

The format is MATLAB's "MAT-File Level 5": elements with a type and a size, and arrays made of elements.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ean_core.common.record import check_regular, read_small

from .matlab73 import is_hdf5, read_matlab73

#: Upper limits: decompressed bytes per file, and arrays in it. Annotations are a hundred times smaller.
MOST, ARRAYS = 2**26, 100_000
#: Maximum nesting depth of arrays.
DEPTH = 16
_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_CELL, _STRUCT, _TEXT, _SPARSE = 1, 2, 4, 5
#: NumPy types by element type, and by array class.
_KINDS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
    16: "u1",
    17: "u2",
}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}


def read_matlab(path: Path) -> dict[str, Any]:
    """Read the variables of a ``.mat`` file of version 5 to 7, or 7.3 (see :mod:`~tasks.matlab73`).

    Arrays of real numbers become NumPy arrays, cells become lists, and structures become lists of dicts; lists are in
    MATLAB's column-major order. Text, complex and sparse arrays, which no annotation needs, become None.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a regular file, has another version, is truncated, has sizes that do not match its
            content, holds objects or functions, or is larger than :data:`MOST`.
    """
    check_regular(path)
    if is_hdf5(path):
        return read_matlab73(path, MOST, ARRAYS, DEPTH)
    content = memoryview(read_small(path))
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:128]))
    if order is None or content[125 if order == "<" else 124] != 1:
        raise ValueError("not a MATLAB file of version 5 to 7; MATLAB's `save -v7` writes one")
    reader = _Reader(order)
    found: dict[str, Any] = {}
    for kind, part in _elements(content[_HEADER:], order):
        inner = _elements(reader.unpacked(part), order) if kind == _COMPRESSED else iter([(kind, part)])
        for each, array in inner:
            name, value = reader.array(each, array)
            found[name] = value
    return found


def _elements(part: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and content of each element in a part."""
    place = 0
    while place + 8 <= len(part):
        kind, size = struct.unpack_from(f"{order}II", part, place)
        start = place + 8
        if kind >> 16:  # small element: up to four bytes in the header itself
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        end = start + size
        if end > len(part) or (start == place + 4 and size > 4):
            raise ValueError(f"an element claims {size:,} bytes, but only {len(part) - start:,} are left")
        yield kind, part[start:end]
        place = max(end, place + 8)
        if kind != _COMPRESSED:
            place += -place % 8


class _Reader:
    """Reads the arrays of one file, within its limits."""

    def __init__(self, order: str) -> None:
        self.order, self.bytes, self.arrays = order, MOST, ARRAYS

    def unpacked(self, part: memoryview) -> memoryview:
        """Decompress a part."""
        stream = zlib.decompressobj()
        try:
            content = stream.decompress(part, self.bytes)
        except zlib.error as error:
            raise ValueError(f"a part is damaged: {error}") from error
        if stream.unconsumed_tail:
            raise ValueError(f"a part of {len(part):,} bytes decompresses to more than {MOST:,}")
        self.bytes = max(1, self.bytes - len(content))
        return memoryview(content)

    def array(self, kind: int, part: memoryview, depth: int = 0) -> tuple[str, Any]:
        """Name and value of an array."""
        self.arrays -= 1
        if kind != _MATRIX or depth > DEPTH or self.arrays < 0:
            raise ValueError(
                f"expected an array, found an element of type {kind}, or too many or too deeply nested arrays"
            )
        if not part:
            return "", np.zeros((0, 0))
        parts = _elements(part, self.order)
        try:
            flags, sizes, name = (next(parts)[1] for _ in range(3))
            (word,) = struct.unpack_from(f"{self.order}I", flags)
            shape = struct.unpack(f"{self.order}{len(sizes) // 4}i", sizes)
        except (RuntimeError, StopIteration, struct.error) as error:
            raise ValueError("an array is incomplete") from error
        if min(shape, default=-1) < 0 or not 2 <= len(shape) <= 32:
            raise ValueError(f"an array has size {shape}")
        return bytes(name).decode("latin-1"), self._value(word, shape, parts, depth)

    def _value(self, word: int, shape: tuple[int, ...], parts: Iterator[tuple[int, memoryview]], depth: int) -> Any:
        of, is_complex, number = word & 0xFF, bool(word & 0x800), math.prod(shape)
        if of in (_TEXT, _SPARSE) or (of in _CLASSES and is_complex):
            return None
        if of in _CLASSES:
            kind, values = next(parts, (0, memoryview(b"")))
            if kind not in _KINDS:
                raise ValueError(f"numbers have type {kind}")
            stored = np.dtype(self.order + _KINDS[kind])
            if len(values) != number * stored.itemsize:
                raise ValueError(f"an array of size {shape} holds {len(values)} bytes of numbers")
            return np.frombuffer(values, stored).astype(_CLASSES[of]).reshape(shape, order="F")
        if of == _CELL:
            return [self._next(parts, depth) for _ in range(self._bounded(number))]
        if of != _STRUCT:
            raise ValueError(f"an array has class {of}, expected numbers, text, cells or structures")
        (_, length), (_, names) = next(parts, (0, b"")), next(parts, (0, b""))
        if len(length) != 4:
            raise ValueError("a structure does not give the length of its field names")
        (width,) = struct.unpack(f"{self.order}i", length)
        if not 1 <= width <= 64 or len(names) > 64 * 1000:
            raise ValueError(f"a structure has field names of {width} bytes, {len(names):,} in total")
        fields = [
            bytes(names[k : k + width]).partition(b"\0")[0].decode("latin-1") for k in range(0, len(names), width)
        ]
        return [{field: self._next(parts, depth) for field in fields} for _ in range(self._bounded(number))]

    def _bounded(self, number: int) -> int:
        if number > self.arrays:
            raise ValueError(f"an array claims {number:,} parts; at most {ARRAYS:,} are read")
        return number

    def _next(self, parts: Iterator[tuple[int, memoryview]], depth: int) -> Any:
        kind, part = next(parts, (0, memoryview(b"")))
        return self.array(kind, part, depth + 1)[1]

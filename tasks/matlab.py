"""MATLAB's files of strangers: looked through before SciPy reads them, whose C code trusts what they say of sizes."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scipy.io import loadmat

#: The most bytes that a part of a file may have when it is decompressed. Those of labels are far fewer.
MOST = 2**28
#: How deep arrays may lie in each other.
DEPTH = 16
_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_CELL, _STRUCT, _SPARSE = 1, 2, 5
#: Bytes of a number, by the kind of an element and by the class of an array of numbers or characters.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_NUMBERS = range(6, 16)
_TEXT = 4


def read_matlab(path: Path, **options: Any) -> dict[str, Any]:
    """The variables of a ``.mat`` file of version 5, which MATLAB has written since 1996 by default.

    Args:
        path: of the file.
        options: of SciPy's ``loadmat``.

    Raises:
        ValueError: if the file is of another version, cut off, of sizes that are not those of its content, or holds
            other things than numbers, text, cells and structures; or if a part would become larger than :data:`MOST`.
        Exception: whatever SciPy raises for what is damaged otherwise.
    """
    content = memoryview(path.read_bytes())
    orders = {b"IM": "<", b"MI": ">"}
    order = orders.get(bytes(content[126:128]))
    if order is None:
        raise ValueError("it is no MATLAB file of version 5 to 7")
    for kind, part in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            for inner, unpacked in _elements(_unpacked(part), order):
                _check(inner, unpacked, order)
        else:
            _check(kind, part, order)
    found: dict[str, Any] = loadmat(path, **options)
    return found


def _elements(part: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Kinds and contents of what stands in a part, one after another."""
    place = 0
    while place + 8 <= len(part):
        kind, size = struct.unpack_from(f"{order}II", part, place)
        start = place + 8
        if kind >> 16:  # four bytes or fewer stand beside their kind and size
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        end = start + size
        if end > len(part) or (start == place + 4 and size > 4):
            raise ValueError(f"an element says it has {size:,} bytes, {len(part) - start:,} are there")
        yield kind, part[start:end]
        place = max(end, place + 8)
        if kind != _COMPRESSED:
            place += -place % 8


def _unpacked(part: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(part, MOST)
    except zlib.error as error:
        raise ValueError(f"a part is damaged: {error}") from error
    if stream.unconsumed_tail:
        raise ValueError(f"a part of {len(part):,} bytes becomes more than {MOST:,} when it is decompressed")
    return memoryview(content)


def _check(kind: int, part: memoryview, order: str, depth: int = 0) -> None:
    """Refuse an array whose sizes are not those of its content."""
    if kind != _MATRIX or depth > DEPTH:
        raise ValueError(
            f"an element is of kind {kind}, expected an array" if depth <= DEPTH else "arrays lie too deep"
        )
    if not part:  # an empty one
        return
    try:
        (_, flags), (_, sizes), _, *content = _elements(part, order)
        (word,) = struct.unpack_from(f"{order}I", flags)
        dimensions = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    except (struct.error, ValueError) as error:
        raise ValueError(f"an array is not whole: {error}") from error
    number, of = math.prod(dimensions), word & 0xFF
    if min(dimensions, default=0) < 0 or not 2 <= len(dimensions) <= 32:
        raise ValueError(f"an array is of size {dimensions}")
    if of in (*_NUMBERS, _TEXT):
        there = [len(values) // _BYTES.get(each, 8) for each, values in content]
        if any(count != number for count in there) and of != _TEXT:
            raise ValueError(f"an array of size {dimensions} holds {there} numbers")
        if of == _TEXT and number > 4 * max(there, default=0):
            raise ValueError(f"a text of size {dimensions} has {there} characters")
        return
    if of == _SPARSE:
        return
    if of not in (_CELL, _STRUCT):
        raise ValueError(f"an array is of class {of}, expected numbers, text, cells or structures")
    if of == _STRUCT:
        if len(content) < 2 or len(content[0][1]) < 4:
            raise ValueError("a structure has no names of fields")
        (length,) = struct.unpack_from(f"{order}i", content[0][1])
        number *= len(content[1][1]) // length if length > 0 else 0
        content = content[2:]
    if len(content) != number:
        raise ValueError(f"an array of size {dimensions} has {len(content)} parts, expected {number}")
    for inner, values in content:
        _check(inner, values, order, depth + 1)

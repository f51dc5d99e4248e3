"""Refuse JPEG 2000 files (ISO/IEC 15444-1) that take much more memory or time to decode than their pixels need."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

#: Precincts and code blocks, each of which takes about a kilobyte to decode: at most this number, and one more for this
#: number of pixels. Usual files have one per 1000 pixels.
PARTS, PIXELS_PER_PART = 10_000, 64
#: Packets, one per precinct and quality layer: at most this number, and one more for this number of pixels.
PACKETS, PIXELS_PER_PACKET = 1_000_000, 8
#: Markers: start of the codestream, sizes, coding style of all components and of one, tile-part, data, end.
_SOC, _SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF4F, 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
#: All markers with a length in headers. At others, OpenJPEG looks for the next one that it knows, also inside.
_SEGMENTS = {_SIZ, _COD, _COC, _SOT, 0xFF50, 0xFF55, *range(0xFF57, 0xFF59), *range(0xFF5C, 0xFF62)} | {
    *(0xFF63, 0xFF64, 0xFF74, 0xFF75, 0xFF77, 0xFF78)
}
_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_DAMAGED = "its JPEG 2000 header is damaged; save it as JPEG"


class _Style(NamedTuple):
    """Coding style: exponents of the sides of code blocks, and of precincts at each resolution, least first."""

    block: tuple[int, int]
    precincts: list[tuple[int, int]]


def check_jpeg2000(data: bytes, size: tuple[int, int]) -> None:
    """Refuse a file whose codestream has another size than the file states, or needlessly many parts.

    Args:
        data: the file.
        size: width and height as stated.

    Raises:
        ValueError: if it does, or cannot be parsed.
    """
    try:
        stream = memoryview(data)[_codestream(data) :]
        segments = list(_segments(stream))
        sizes = next(content for mark, content in segments if mark == _SIZ)
        right, lower, left, upper, *tile = struct.unpack_from(">8I", sizes, 2)
        components = struct.unpack_from(">H", sizes, 34)[0]
        styles = [_style(content, mark, components) for mark, content in segments if mark in (_COD, _COC)]
        layers = max(struct.unpack_from(">H", content, 2)[0] for mark, content in segments if mark == _COD)
    except (struct.error, StopIteration, IndexError, ValueError):
        raise ValueError(_DAMAGED) from None
    width, height = right - left, lower - upper
    if (width, height) != size:
        raise ValueError(f"it states {size[0]} x {size[1]} pixels, but its codestream has {width} x {height}")
    if not tile[0] or not tile[1]:
        raise ValueError(_DAMAGED)
    tiles = -(-(right - tile[2]) // tile[0]), -(-(lower - tile[3]) // tile[1])
    # Each style as if all components of all tiles had it.
    parts = components * max(_parts(style, size, tiles) for style in styles)
    pixels = width * height
    if parts > PARTS + pixels // PIXELS_PER_PART:
        raise ValueError(f"it is cut into {parts:,} parts, too many for its size; save it as JPEG")
    if layers * parts > PACKETS + pixels // PIXELS_PER_PACKET:
        raise ValueError(f"it has {layers:,} layers of {parts:,} parts, too many for its size; save it as JPEG")


def _parts(style: _Style, size: tuple[int, int], tiles: tuple[int, int]) -> int:
    """Number of precincts and code blocks of one component, at most; each edge of a tile may cut one."""
    parts = 0
    for level, precinct in enumerate(reversed(style.precincts)):
        for powers in (precinct, map(min, precinct, style.block)):
            parts += math.prod(
                -(-side >> (power + level)) + cuts for side, power, cuts in zip(size, powers, tiles, strict=True)
            )
    return parts


def _codestream(data: bytes) -> int:
    """Offset of the codestream, which is the file, or in its first box ``jp2c``."""
    if not data.startswith(_SIGNATURE):
        return 0
    at = 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        if kind == b"jp2c":
            return at + head
        if length < head:
            raise ValueError(_DAMAGED)
        at += length


def _segments(stream: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield marker and content of the segments of the main header and of all tile-parts."""
    at = end = 0
    while at + 2 <= len(stream):
        mark = struct.unpack_from(">H", stream, at)[0]
        if mark == _EOC:
            return
        if mark == _SOD:
            if not end:  # of the last tile-part, without a length
                return
            at, end = end, 0
            continue
        if mark == _SOC:
            at += 2
            continue
        length = struct.unpack_from(">H", stream, at + 2)[0]
        if mark not in _SEGMENTS or length < 2:
            raise ValueError(_DAMAGED)
        content = stream[at + 4 : at + 2 + length]
        if mark == _SOT:
            part = struct.unpack_from(">I", content, 2)[0]
            if 0 < part < 14:
                raise ValueError(_DAMAGED)
            end = at + part if part else 0
        yield mark, content
        at += 2 + length


def _style(content: memoryview, mark: int, components: int) -> _Style:
    """Parse the segment of the coding style of all components, or of one, whose number comes first."""
    first = 0 if mark == _COD else 1 if components < 257 else 2
    sized, at = content[first] & 1, first + (5 if mark == _COD else 1)
    levels = content[at]
    if levels > 32:
        raise ValueError("more than 32 decompositions")
    values = content[at + 5 : at + 6 + levels] if sized else bytes([0xFF]) * (levels + 1)
    if len(values) <= levels:
        raise ValueError("too few precincts")
    block = ((content[at + 1] & 15) + 2, (content[at + 2] & 15) + 2)
    return _Style(block, [(value & 15, value >> 4) for value in values])

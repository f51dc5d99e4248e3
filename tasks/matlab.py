"""MATLAB's files of strangers: read where they are as small as annotations are."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from scipy.io import loadmat

#: The most bytes that a part of a file may have when it is decompressed. Those of labels are far fewer.
MOST = 2**28
_HEADER, _COMPRESSED = 128, 15


def read_matlab(path: Path, **options: Any) -> dict[str, Any]:
    """The variables of a ``.mat`` file.

    Args:
        path: of the file.
        options: of SciPy's ``loadmat``.

    Raises:
        ValueError: if a part would become larger than :data:`MOST`, before it takes memory.
        Exception: whatever SciPy raises for damaged files.
    """
    content = path.read_bytes()
    place = _HEADER
    while place + 8 <= len(content):  # of version 5; others have no compressed parts
        kind, size = (int.from_bytes(content[place + k : place + k + 4], "little") for k in (0, 4))
        part = memoryview(content)[place + 8 : place + 8 + size]
        if kind == _COMPRESSED and _is_larger(part):
            raise ValueError(f"a part of {len(part):,} bytes becomes more than {MOST:,} when it is decompressed")
        place += 8 + size
    found: dict[str, Any] = loadmat(path, **options)
    return found


def _is_larger(part: memoryview) -> bool:
    """Whether a compressed part becomes larger than :data:`MOST`; one that is damaged does not."""
    stream, length = zlib.decompressobj(), 0
    try:
        while part and length <= MOST:
            length += len(stream.decompress(part, 2**20))
            part = memoryview(stream.unconsumed_tail)
    except zlib.error:
        return False
    return length > MOST

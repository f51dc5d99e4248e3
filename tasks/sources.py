"""Resolve command-line inputs: images, folders, videos, webcams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ean_core.data.images import SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
#: Marks an annotated image or video, before the suffix of its file name.
OVERLAY = ".overlay"
#: The same for explanation images.
EXPLAINED = ".explained"
MADE = (OVERLAY, EXPLAINED)


def find_sources(given: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the kind (``'picture'``, ``'video'`` or ``'missing'``), the source, and a name for its outputs.

    Names are file names, with their relative paths if found in a folder; duplicates get a number appended.

    Args:
        given: files, folders (searched recursively), and webcam numbers. In folders, outputs of this package are
            skipped.
    """
    taken: set[str] = set()

    def distinct(name: str) -> str:
        numbered, number = name, 1
        while numbered.casefold() in taken:  # some file systems ignore case
            number += 1
            numbered = f"{name}.{number}"
        taken.add(numbered.casefold())
        return numbered

    for text in given:
        path = Path(text).expanduser()
        if text.isdecimal() and not path.exists():
            yield "video", text, distinct(f"webcam{text}")
        elif path.is_dir():
            for file in sorted(path.rglob("*")):
                kind = _kind(file)
                if kind and file.is_file() and not any(f"{mark}." in file.name for mark in MADE):
                    yield kind, str(file), distinct(file.relative_to(path).as_posix())
        elif path.is_file():
            yield _kind(path) or "picture", str(path), distinct(path.name)
        else:
            yield "missing", text, ""


def printable(name: str) -> str:
    """Return a file name with a question mark for each undecodable byte."""
    return name.encode(errors="replace").decode()


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return "picture" if suffix in SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else None

"""What one names to have looked at: pictures, folders of them, videos, webcams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .pictures import SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
#: What stands before the suffix of a picture or video that was drawn on.
OVERLAY = ".overlay"
#: The same of pictures that explain.
EXPLAINED = ".explained"
MADE = (OVERLAY, EXPLAINED)


def find_sources(given: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Kind (``'picture'``, ``'video'`` or ``'missing'``), source, and name of what is written about it.

    Names are the files', in folders with the way to them; where several sources have the same one, a number follows.

    Args:
        given: files, folders, which are searched through, and numbers of webcams. In folders, what this package made
            is left out.
    """
    taken: set[str] = set()

    def distinct(name: str) -> str:
        numbered, number = name, 1
        while numbered.casefold() in taken:  # as file systems compare them
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
    """A name of a file with a question mark for each byte that is no text."""
    return name.encode(errors="replace").decode()


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return "picture" if suffix in SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else None

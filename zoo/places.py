"""Where files of published models lie: in the package, and in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ean_core.common.places import home

from .index import Entry


def places(entry: Entry) -> Iterator[Path]:
    """Yield the existing files with a model's file name, first in the package, then in the cache."""
    if entry.packaged_file.is_file():
        yield entry.packaged_file
    cached = cache() / entry.file
    if cached.is_file():
        yield cached


def cache() -> Path:
    """The folder of downloaded files."""
    return home() / "zoo"

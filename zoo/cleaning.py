"""The cache of downloaded models: list its contents, and remove files that are no longer used."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from ean_core.common.hashes import file_hash
from ean_core.common.writing import file_lock

from .index import Entry, published
from .names import ModelName
from .places import cache

_MODEL = re.compile(r"(?P<name>.+)-[0-9a-f]{8}\.safetensors")
PART, LOCK = ".part", ".lock"


@dataclass(frozen=True)
class Cached:
    """A file in the cache.

    Args:
        path: the file.
        size: in bytes.
        note: state of the file, for the user.
        useless: whether to remove it.
    """

    path: Path
    size: int
    note: str
    useless: bool


def contents() -> list[Cached]:
    """Return the files of the cache, sorted by name, without subfolders; nothing is changed.

    Useless are: another version of a model that the index has, a damaged file, part of a download that no process
    holds, and a lock that none holds. Links and unknown files, such as models of an index that is not in use, are kept.
    """
    entries = {entry.file: entry for entry in published().values()}
    names = {str(name) for name in published()}
    folder = cache()
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            continue
        note, useless = ("not a regular file, kept", False)
        if stat.S_ISREG(status.st_mode):
            note, useless = _judged(path, entries, names)
        found.append(Cached(path, status.st_size, note, useless))
    return found


def remove(cached: Cached) -> str:
    """Remove a file of the cache; return an empty text, or why it was kept."""
    path = cached.path
    try:
        if path.suffix in (PART, LOCK):
            with _unused(path) as unused:
                if not unused:
                    return "in use by now"
                path.unlink(missing_ok=True)
                _lock(path).unlink(missing_ok=True)  # it was created for this, or is useless itself
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _judged(path: Path, entries: dict[str, Entry], names: set[str]) -> tuple[str, bool]:
    """Note on a regular file, and whether it is useless."""
    if path.suffix in (PART, LOCK):
        what = "part of a download" if path.suffix == PART else "lock of a download"
        if not _is_model(path.stem):
            return "unknown, kept", False
        if _lock(path).exists() or _lock(path).is_symlink():
            with _unused(path) as unused:
                return (f"{what} that no process holds", True) if unused else ("being downloaded", False)
        return f"{what} that no process holds", True
    if path.name in entries:
        entry = entries[path.name]
        good = path.stat().st_size == entry.size and file_hash(path) == entry.sha256
        return ("current", False) if good else ("damaged", True)
    match = _MODEL.fullmatch(path.name)
    if match and match["name"] in names:
        return "superseded: the index has another version", True
    return "unknown, kept" if not match else "not in the index, kept", False


def _is_model(file: str) -> bool:
    """Whether a file name is that of a model, of this index or another."""
    match = _MODEL.fullmatch(file)
    try:
        return match is not None and bool(ModelName.parse(match["name"]))
    except ValueError:
        return False


def _lock(path: Path) -> Path:
    """The lock of the download that a file belongs to."""
    return path.with_suffix(LOCK)


@contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Hold the lock of a download during the block; yield whether that was possible."""
    try:
        lock = file_lock(_lock(path), timeout=0)
        lock.acquire()
    except (OSError, Timeout, NotImplementedError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()

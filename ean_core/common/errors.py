"""Exceptions shared across the package."""

from __future__ import annotations

import difflib
import errno
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: OS errors that mean a location is not writable, and how to report them.
_PLACES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EFBIG: "it would exceed the file size limit",
}
#: A disk with at least this many megabytes free is not considered full.
_SOME_ROOM = 100.0


class InUseError(OSError):
    """Another process is using the same files."""


class CannotWriteError(OSError):
    """A file could not be written; the message gives its path, the reason and the free disk space."""


class DivergedError(ValueError):
    """Training diverged: a loss or weight is NaN or infinite."""


@contextmanager
def writing(path: Path, *, alone: bool = True) -> Iterator[None]:
    """Re-raise OS write errors with the path and the free disk space.

    Args:
        path: the file, or the folder if several files are written.
        alone: whether the block only writes this file. If not, permission errors, which may come from reading, are
            passed on, and so are disk-full errors if the folder's disk has free space.

    Raises:
        CannotWriteError: in place of OS write errors; other errors are passed on.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, CannotWriteError) or not (error.errno in _PLACES or _is_full(error)):
            raise
        code = errno.ENOSPC if _is_full(error) else error.errno
        places = (path.absolute(), *path.absolute().parents)
        place = next(each for each in places if os.path.isdir(each))  # noqa: PTH112  Path.is_dir may raise
        try:
            free = shutil.disk_usage(place).free / 1e6
        except OSError:
            free = math.nan
        if not alone and (code in (errno.EACCES, errno.EPERM) or (code == errno.ENOSPC and free > _SOME_ROOM)):
            raise
        name = path if alone or not error.filename else error.filename
        raise CannotWriteError(
            f"{name} cannot be written: {_PLACES[code or 0]}; {free:.1f} MB are free in {place}"
        ) from error


def unknown_name(kind: str, given: object, valid: Iterable[object]) -> ValueError:
    """The error for a name outside a fixed set, with the nearest matches and all valid names.

    Examples:
        >>> unknown_name("attention", "SEE", ["SE", "SGE", "DIA"])
        ValueError("unknown attention 'SEE'; did you mean 'SE' or 'SGE'? Choose from 'DIA', 'SE', 'SGE'")
    """
    names = sorted(set(valid), key=lambda name: (str(type(name)), name))
    text = {str(name).lower(): name for name in names}
    near = [repr(text[match]) for match in difflib.get_close_matches(str(given).lower(), text, n=2)]
    hint = f"; did you mean {' or '.join(near)}? Choose" if near else "; choose"
    return ValueError(f"unknown {kind} {given!r}{hint} from {', '.join(map(repr, names)) or '(nothing)'}")


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, old value and new value of each entry that differs between nested settings.

    Examples:
        >>> list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}))
        [('a.c', 2, 3), ('d', None, 4)]
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield name, before, now


def _is_full(error: OSError) -> bool:
    """Whether the disk is full; C libraries such as HDF5 report it only in the message."""
    return error.errno == errno.ENOSPC or "No space left on device" in str(error)

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

#: What the system says of a place that takes no more, and how a reader would say it.
_PLACES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EFBIG: "it may not become so large",
}
#: Free megabytes with which a folder is not what is full.
_SOME_ROOM = 100.0


class InUseError(OSError):
    """Another process works on the same files."""


class CannotWriteError(OSError):
    """A file could not be written; the message names it, why, and the room that is left."""


class DivergedError(ValueError):
    """A training left the numbers that can be computed with."""


@contextmanager
def writing(path: Path, *, alone: bool = True) -> Iterator[None]:
    """Have what the system says of a file that cannot be written name the file and the room that is left.

    Args:
        path: of the file, or the folder where several are written.
        alone: nothing else is done inside than to write it. Otherwise errors of permission, which may be of something
            read, pass, and so does a lack of room where the folder has some.

    Raises:
        CannotWriteError: in place of errors of the disk; others pass.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, CannotWriteError) or not (error.errno in _PLACES or _is_full(error)):
            raise
        code = errno.ENOSPC if _is_full(error) else error.errno
        places = (path.absolute(), *path.absolute().parents)
        place = next(each for each in places if os.path.isdir(each))  # noqa: PTH112  Path's raises where it may not look
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
    """The error for a name outside a fixed set: what was given, what is nearest, what there is.

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
    """Dotted name, old and new value of each entry that differs between nested settings.

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
    """Libraries in C, such as HDF5, say it in words."""
    return error.errno == errno.ENOSPC or "No space left on device" in str(error)

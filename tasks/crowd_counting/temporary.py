"""The server's folder for visitors' files, deleted when the server ends, or else when the next one starts."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import Timeout

from ean_core.common.writing import file_lock

PREFIX = "ean-crowd-"
#: Held by the process that a folder belongs to. A folder without it is not one of ours, or of an older version.
LOCK = ".ean-crowd-serve.lock"
#: Age in seconds below which a folder is kept: its process may not hold the lock yet.
STARTING_S = 60


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new private folder, deleted at the end of the block; before, delete those of servers that were killed."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, file_lock(Path(name, LOCK)):
        yield Path(name)


def sweep() -> list[Path]:
    """Delete the folders of servers that no longer run, and return them.

    They are folders (not links) in the system's temporary folder with our name, of this user and private to them, whose
    lock exists and no process holds. Links inside are removed, not followed.
    """
    swept = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if not _is_ours(path) or not (path / LOCK).is_file():
                continue
            with file_lock(path / LOCK, timeout=0):
                shutil.rmtree(path, ignore_errors=True)
        except (OSError, Timeout):  # in use, or another server sweeps, too
            continue
        shutil.rmtree(path, ignore_errors=True)  # Windows keeps the lock while it is held
        swept.append(path)
    return swept


def stop_cleanly() -> None:
    """Have SIGTERM and SIGHUP (the terminal was closed) clean up as Ctrl-C does; ``nohup`` still ignores the latter.

    Both the kernel and the shell may send one: only the first counts, or the second would interrupt the cleaning.
    """
    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]

    def stop(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        signal.default_int_handler(number, frame)

    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _is_ours(path: Path) -> bool:
    """Whether a path is a private folder of this user that is not just being made."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or time.time() - found.st_mtime < STARTING_S:
        return False
    # Windows has neither users as numbers nor these permissions; its temporary folder is the user's own.
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077)

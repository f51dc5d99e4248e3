"""Files that a server keeps for its visitors: their uploads, and the results drawn from them.

Security: a path that a visitor sends is never resolved. It is only compared with the paths that this module handed
out, and is readable to the visitor it was handed to, so other files of the machine and of other visitors are out of
reach, whatever the path looks like. Each file has a folder with a random name. Files are opened without following
links, and only if they are regular, so one that was exchanged on the disk is refused as if it were missing.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

#: Age at which files are deleted, in seconds.
KEPT_S = 3600
#: Bytes that each file counts in addition to its size, which bounds the number of small files.
FILE_COST = 2**18
#: Message about a path that cannot be read, the same for every reason.
GONE = "this image is no longer here, images are deleted after a while; please upload it again"


@dataclass(eq=False)
class Kept:
    """A file of a visitor.

    Args:
        visitor: who may read it.
        address: network address it came from.
        folder: its own folder.
        stop: called if it is removed while it is still being received.
        path: the file, once it is complete.
        size: bytes received so far.
        since: time of arrival on the monotonic clock.
    """

    visitor: str
    address: str
    folder: Path
    stop: Callable[[], object]
    path: Path | None = None
    size: int = 0
    since: float = field(default_factory=time.monotonic)


class KeptFiles:
    """Visitors' files, at most so many bytes of them.

    When they are more, files of the address that has most are removed, the oldest first. Uploads count while they
    are received. All methods may be called from any thread.

    Args:
        folder: folder to keep them in.
        max_bytes: maximum size of all files, each counted as its size plus ``FILE_COST``.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.max_bytes = max_bytes
        self._kept: dict[str, Kept] = {}  # by the name of the folder, the oldest first
        self._shared: set[str] = set()
        self._lock = threading.Lock()

    def share(self, *paths: Path) -> None:
        """Let every visitor read these files, which are never removed."""
        self._shared.update(map(str, paths))

    def readable(self, path: object, visitor: str) -> bool:
        """Whether this is the exact path of a file that the visitor may read."""
        if not isinstance(path, str):
            return False
        kept = self._kept.get(Path(path).parent.name)
        return path in self._shared or (kept is not None and str(kept.path) == path and kept.visitor == visitor)

    def add(self, visitor: str, address: str, name: str, content: bytes) -> Path:
        """Keep a result, and return its file."""
        kept = self.begin(visitor, address)
        self.grow(kept, len(content))
        return self.finish(kept, name, io.BytesIO(content))

    def begin(self, visitor: str, address: str, stop: Callable[[], object] = lambda: None) -> Kept:
        """Begin to receive an upload; it ends with ``finish`` or ``remove``."""
        folder = self.folder / secrets.token_urlsafe()
        folder.mkdir()
        kept = Kept(visitor, address, folder, stop)
        with self._lock:
            self._kept[folder.name] = kept
            self._make_room()
        return kept

    def grow(self, kept: Kept, size: int) -> None:
        """Count bytes of an upload that is being received."""
        with self._lock:
            kept.size += size
            self._make_room()

    def finish(self, kept: Kept, name: str, content: IO[bytes]) -> Path:
        """Write a received upload, and return its file.

        Raises:
            FileNotFoundError: if it was removed meanwhile, to make room for others.
        """
        path = kept.folder / _safe_name(name)
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)
        with self._lock:
            if kept.folder.name not in self._kept:
                shutil.rmtree(kept.folder, ignore_errors=True)
                raise FileNotFoundError(path)
            kept.path = path
        return path

    def remove(self, kept: Kept) -> None:
        """Remove a file, or an upload that failed."""
        with self._lock:
            self._remove(kept)

    def expire(self) -> None:
        """Remove the files older than ``KEPT_S``."""
        with self._lock:
            for kept in list(self._kept.values()):
                if time.monotonic() - kept.since > KEPT_S:
                    self._remove(kept)

    def _make_room(self) -> None:
        while True:
            used: Counter[str] = Counter()
            for kept in self._kept.values():
                used[kept.address] += kept.size + FILE_COST
            if used.total() <= self.max_bytes:
                return
            most = max(used, key=used.__getitem__)
            oldest = next(kept for kept in self._kept.values() if kept.address == most)
            if oldest.path is None:
                oldest.stop()
            self._remove(oldest)

    def _remove(self, kept: Kept) -> None:
        self._kept.pop(kept.folder.name, None)
        shutil.rmtree(kept.folder, ignore_errors=True)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading if it is regular; neither it nor its folder may be a link.

    Raises:
        FileNotFoundError: if it is missing, a link, or of another kind; it is all the same to a visitor.
    """
    return open(path, "rb", opener=_open_regular)


def _open_regular(path: str | os.PathLike[str], flags: int) -> int:
    # A FIFO would block without O_NONBLOCK. Windows has none of these flags, and no FIFOs in folders.
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if os.open in os.supports_dir_fd:
            folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                descriptor = os.open(Path(path).name, flags, dir_fd=folder)
            finally:
                os.close(folder)
        else:
            descriptor = os.open(path, flags)
    except OSError:
        raise FileNotFoundError(path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return descriptor


def _safe_name(name: str) -> str:
    """Return a file name without its folder, and without what file systems refuse."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = "".join(letter for letter in name if letter.isprintable() and letter not in '<>:"|?*')
    stem, suffix = Path(name).stem, Path(name).suffix
    return f"{stem[:50]}{suffix[:10]}".strip(" .") or "image"  # at most 240 bytes

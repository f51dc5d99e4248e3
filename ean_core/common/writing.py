"""Every write of the package goes through this file, so that none follows a link out of the folder it is meant for.

A folder that was unpacked from a stranger's archive may hold links under any name that a command writes. The rules:

- A file is written under a random name beside its target, created exclusively, and renamed when it is complete
  (:func:`replacing`). Renaming replaces a target that is a link by a regular file; the file it points to is unchanged.
- A file that is followed while it grows is created under its own name, after what had this name is removed
  (:func:`open_new`).
- A file that is continued (ledgers, logs, downloads, locks) is not opened if it is a link: what it points to would be
  changed (:func:`open_in_place`, :func:`file_lock`).
- Folders may be links: that is how users put data and results on another disk. Files in them get the same care.

A process that may write to the same folder can still exchange a file while it is being written; permissions guard
against that.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .errors import InUseError, writing

if TYPE_CHECKING:
    from filelock import FileLock

#: Temporary files: ``.NAME.XXXXXXXX.part``, followed by the suffix of the target for libraries that look at it.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.part(\.\w+)?", re.DOTALL)
#: Files that a training or a search writes from its first step on, and a test at its end.
_BEGUN = ("progress.json", "*.jsonl", "test.json", "*.pth")
#: Names of what a start leaves: mmengine's folder of logs, named after a second, locks, and TensorBoard's file.
_STARTED = re.compile(r"\d{8}_\d{6}|.+\.lock|events\.out\.tfevents\..+")
#: Characters of the target's name in that of its temporary file; a file name has at most 255 bytes, a character four.
_NAME = 48
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag; links need privileges there
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO would wait for its other end; regular files ignore the flag


class LinkError(OSError):
    """A file to write is a symbolic link."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(f"{path} is a link, and what it points to would be changed; remove it")


class NotRegularError(OSError):
    """A file to continue is a FIFO or a device."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(f"{path} is not a regular file; remove it")


@contextmanager
def replacing(path: Path, *, suffix: bool = False) -> Iterator[Path]:
    """Yield an empty temporary file, which is renamed to ``path`` at the end of the block.

    No reader sees a partial file. If the block raises anything, the temporary file is removed, and ``path`` is
    unchanged. Code can open the temporary file, and libraries can write to its path: it exists, with the permissions of
    an ordinary new file.

    Args:
        path: file to write; its folder is created. If it is a link, the link is replaced.
        suffix: whether the temporary file needs the suffix of ``path``, for libraries that choose a format by it.

    Raises:
        CannotWriteError: if it cannot be written.
    """
    with writing(path), temporary(path, suffix=suffix) as partial:
        yield partial
        partial.replace(path)


@contextmanager
def temporary(path: Path, *, suffix: bool = False) -> Iterator[Path]:
    """As :func:`replacing`, but the block itself renames the file, or else it is removed."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _create(path, path.suffix if suffix else "")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def open_new(path: Path, **options: Any) -> IO[str]:
    """Create a text file under its final name, for files that are followed while they grow.

    What had this name is removed: a link is not followed, and a file of two names keeps its content under the other.

    Args:
        path: file to write; its folder is created.
        options: those of :func:`open`.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path.open("x", **options)


def open_in_place(path: str | os.PathLike[str], mode: str = "a", **options: Any) -> IO[Any]:
    """Open a file that is continued; it is created if it does not exist.

    Args:
        path: file to open.
        mode, options: those of :func:`open`.

    Raises:
        LinkError: if it is a link.
        NotRegularError: if it is a FIFO or a device.
    """
    return open(path, mode, opener=_open_no_link, **options)


def file_lock(path: str | os.PathLike[str], **options: Any) -> FileLock:
    """Return a lock that another process may hold; not yet acquired.

    Args:
        path: file of the lock.
        options: those of :class:`filelock.FileLock`.

    Raises:
        LinkError: if it is a link, which filelock would refuse with a less helpful message.
    """
    from filelock import FileLock

    refuse_link(path)
    return FileLock(path, **options)


def check_folder(folder: Path) -> None:
    """Refuse a folder for output that cannot be created or written to, without creating it.

    Raises:
        NotADirectoryError: if a file has its name, or that of one of the folders it is in.
        CannotWriteError: if it cannot be written to.
    """
    place = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not place.is_dir():
        kind = "a link to nothing" if place.is_symlink() and not place.exists() else "a file"
        where = "" if place == folder else f", in which {folder} would be"
        raise NotADirectoryError(f"{place} is {kind}, not a folder{where}; remove it, or choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        read_only = hasattr(os, "statvfs") and os.statvfs(place).f_flag & os.ST_RDONLY
        with writing(folder):
            raise OSError(errno.EROFS if read_only else errno.EACCES, "cannot be written", str(folder))


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Remove from a folder, if the block fails before it got anywhere, the logs, configs and locks that it wrote, and
    the folder if it is new and then empty.

    A file of :data:`_BEGUN` that is new or has changed tells that there is something to keep. Other new files stay,
    too: they may be another command's, or the user's.

    Args:
        folder: folder of a run, which the block creates if necessary.
    """
    missing = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
    before = set() if missing else set(os.listdir(folder))  # noqa: PTH208  names
    begun = _begun(folder)
    try:
        yield
    except InUseError:  # what is new may be the other process's
        raise
    except BaseException:
        if folder.is_dir() and _begun(folder) == begun:
            new = [each for each in folder.iterdir() if each.name not in before]
            logged = {each.read_bytes() for path in new for each in path.glob("vis_data/config.py")}
            for path in new:
                if path.is_file() and (
                    _STARTED.fullmatch(path.name) or (path.suffix == ".py" and path.read_bytes() in logged)
                ):
                    path.unlink(missing_ok=True)
                elif _STARTED.fullmatch(path.name) and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
            for each in missing:
                with suppress(OSError):  # another process may use it by now
                    each.rmdir()
        raise


def _begun(folder: Path) -> dict[Path, int]:
    """When the files of :data:`_BEGUN` were written."""
    found = (path for path in folder.rglob("*") if any(map(path.match, _BEGUN)))
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


def refuse_link(path: str | os.PathLike[str]) -> None:
    """Refuse a file that another library opens for writing if it is a link.

    Raises:
        LinkError: if it is one.
    """
    if Path(path).is_symlink():
        raise LinkError(path)


def remove_link(path: Path) -> None:
    """Remove a link where another library writes a file."""
    if path.is_symlink():
        path.unlink()


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove temporary files of processes that were killed; only for files that no other process may be writing.

    Args:
        folder: folder to clean.
        pattern: glob pattern of the temporary files' paths, relative to the folder; files with other names are kept.
    """
    for path in folder.glob(pattern):
        if is_leftover(path) and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file has the name of a temporary one."""
    return _TEMPORARY.fullmatch(path.name) is not None


def _create(path: Path, suffix: str) -> Path:
    """Create a file beside ``path`` that did not exist; tempfile's would be unreadable for other users."""
    import secrets

    while True:
        partial = path.with_name(f".{path.name[:_NAME]}.{secrets.token_hex(4)}.part{suffix}")
        try:
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NO_LINKS, 0o666))
        except FileExistsError:
            continue
        return partial


def _open_no_link(path: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | _NO_LINKS | _NO_WAIT, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and os.path.islink(path):  # noqa: PTH114
            raise LinkError(path) from error
        if error.errno == errno.ENXIO:  # a FIFO that nobody reads
            raise NotRegularError(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(path)
    return descriptor

"""The ledger: an append-only file with one JSON line per evaluated scheme, the complete state of a search."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import Timeout

from ean_core.common.errors import InUseError, differences, writing
from ean_core.common.writing import file_lock, open_in_place


class Ledger:
    """The evaluations of one search, in order.

    The first line is the search's key: the network, the data and the strategy. Lines are on disk before the next step
    begins; a torn last line (from a process killed while writing) is dropped with a notice. As a context manager it
    holds a lock, so a second search on the same ledger is refused.

    Args:
        path: the file; created if it does not exist.
        key: plain values that identify the search.

    Raises:
        ValueError: if the file belongs to another search or is damaged before its last line.
        InUseError: if another process is using it.
        LinkError: if the file is a link.
    """

    def __init__(self, path: str | os.PathLike[str], key: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.key = json.loads(json.dumps(key))
        #: Lines read from the file, written by an earlier, interrupted search.
        self.lines: list[dict[str, Any]] = []
        #: Notice about the file from when it was opened, if any.
        self.notice: str | None = None

    def __enter__(self) -> Ledger:
        try:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = file_lock(f"{self.path}.lock", timeout=0)
                self._lock.acquire()
        except Timeout:
            raise InUseError(
                f"another search is writing {self.path}; wait for it, or choose another --work-dir"
            ) from None
        try:
            with writing(self.path):
                self._file = open_in_place(self.path, encoding="utf-8")
            try:
                self._read()
                if not self.path.stat().st_size:
                    self.append(self.key)
            except BaseException:
                self._file.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        return self

    def append(self, *lines: Mapping[str, Any]) -> None:
        """Write lines, all of a step at once, and sync them to disk."""
        with writing(self.path):
            self._file.write("".join(json.dumps(line) + "\n" for line in lines))
            self._file.flush()
            os.fsync(self._file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def _read(self) -> None:
        lines, torn = read_lines(self.path)
        if torn:
            self._file.truncate(self.path.stat().st_size - len(torn))
            self.notice = f"{self.path}: dropped a torn last line of {len(torn)} bytes; it is evaluated again"
        if not lines:
            return
        different = list(differences(lines[0], self.key))
        if different:
            listing = "; ".join(f"{name} is {there!r} there, {here!r} here" for name, there, here in different[:4])
            raise ValueError(f"{self.path} belongs to another search: {listing}. Choose another --work-dir")
        self.lines = lines[1:]


def read_lines(path: Path) -> tuple[list[dict[str, Any]], bytes]:
    """The complete lines of a ledger, its key first, and the torn remainder.

    Raises:
        ValueError: if a line other than the last is damaged.
    """
    *whole, torn = path.read_bytes().split(b"\n")
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(whole, 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}, is damaged: {text[:60]!r}") from error
        if not isinstance(line, dict):
            raise ValueError(f"{path}, line {number}, is not a ledger line: {text[:60]!r}")
        lines.append(line)
    return lines, torn

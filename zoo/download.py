"""Fetching one file: resumed where it broke off, tried again, and under its name only when it is the right one."""

from __future__ import annotations

import errno
import http.client
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ean_core.weights.files import file_hash

CHUNK = 2**18  # bytes
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for


class DownloadError(OSError):
    """A file could not be fetched; the message says why and what to do."""


@dataclass(frozen=True)
class Patience:
    """How long to put up with a poor connection.

    Args:
        tries: connections in all.
        timeout: seconds without a byte after which a connection counts as dead.
        backoff: seconds before the second try, doubled for each further one.
    """

    tries: int = 5
    timeout: float = 30.0
    backoff: float = 1.0


#: What is asked of a connection where nothing else is said.
USUAL = Patience()


class _BrokenOffError(Exception):
    """The connection failed in a way that may pass.

    Args:
        reason: for the message.
        wait: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def fetch(
    address: str,
    path: Path,
    *,
    size: int,
    sha256: str,
    patience: Patience = USUAL,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Fetch a file of known size and hash.

    The bytes gather in ``PATH.part``, from where an interrupted fetch goes on, and get their name when they are right.

    Args:
        address: ``http(s):`` or ``file:``. Proxies are taken from the environment, as by curl.
        path: where to; its folder exists.
        size: of the file, bytes.
        sha256: of the file, in hexadecimal digits.
        patience: with the connection.
        progress: told the number of bytes there are so far.

    Raises:
        DownloadError: if the file is not there, is not allowed, is another one, does not come whole, or finds no room.
    """
    part = path.with_name(path.name + ".part")
    if part.is_symlink():  # what is written would go where it leads
        part.unlink()
    begun = _length(part)
    _gather(address, part, size, patience, progress)
    found = file_hash(part)
    if found != sha256 and begun:  # what an earlier attempt left may have been of another file
        part.unlink()
        _gather(address, part, size, patience, progress)
        found = file_hash(part)
    if found != sha256:
        part.unlink()
        raise DownloadError(f"{address} is not the published file: its SHA-256 is {found[:8]}…, expected {sha256[:8]}…")
    part.replace(path)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows servers to other addresses of the web only; urllib would also go on by FTP."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith(("http://", "https://")):
            raise DownloadError(f"{req.full_url} leads to {newurl[:80]}; only http(s):// is followed, nothing was kept")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _gather(address: str, part: Path, size: int, patience: Patience, progress: Callable[[int], None]) -> None:
    """Have ``part`` hold ``size`` bytes of the address."""
    if _length(part) > size:
        part.unlink()
    missing = size - _length(part)
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise DownloadError(
            f"no room for {part.name.removesuffix('.part')} in {part.parent}: it needs {missing / 1e6:.1f} MB, "
            f"{free / 1e6:.1f} MB are free; make room, or set EAN_HOME to a folder elsewhere"
        )
    reason, wait = "", 0.0
    for attempt in range(patience.tries):
        if _length(part) == size:
            return
        if attempt:
            time.sleep(max(patience.backoff * 2 ** (attempt - 1), wait))
        try:
            _transfer(address, part, size, patience.timeout, progress)
        except _BrokenOffError as error:
            reason, wait = str(error), error.wait
    if _length(part) == size:
        return
    kept = f"; the first {_length(part):,} bytes are kept, the next attempt goes on from there" if _length(part) else ""
    raise DownloadError(f"{address} could not be fetched in {patience.tries} tries: {reason}{kept}")


def _transfer(address: str, part: Path, size: int, timeout: float, progress: Callable[[int], None]) -> None:
    """One connection: append what comes to ``part``."""
    have = _length(part)
    request = urllib.request.Request(address, headers={"User-Agent": "ean-zoo", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.build_opener(_Redirects).open(request, timeout=timeout)
    except DownloadError:
        raise
    except urllib.error.HTTPError as error:
        _refuse(error, address, part)
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, http.client.InvalidURL) or isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{address} cannot be fetched: {reason}") from error
        if isinstance(reason, FileNotFoundError) or address.startswith("file:"):
            raise DownloadError(f"there is no {address} ({reason})") from error
        if isinstance(reason, TimeoutError):
            raise _BrokenOffError(f"no answer in {timeout:g} s") from error
        raise _BrokenOffError(f"no connection ({reason})") from error
    with answer:
        resumed = answer.status == 206
        if have and not resumed:  # the server sends all of it
            have = 0
        _check_headers(answer, address, part, size, have)
        _append(answer, part, have, size, timeout, progress)


def _refuse(error: urllib.error.HTTPError, address: str, part: Path) -> None:
    """Turn a status that is no success into the error to raise."""
    with error:
        if error.code == 416:  # what there is does not fit the file: begin anew
            part.unlink(missing_ok=True)
            raise _BrokenOffError("the server could not go on from the bytes there were") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            after = error.headers.get("Retry-After", "")
            raise _BrokenOffError(
                f"the server answered {error.code} {error.reason}",
                min(float(after), LONGEST_WAIT) if after.isdigit() else 0,
            )
        if error.code in (401, 403):
            raise DownloadError(f"{address}: the server refuses it ({error.code} {error.reason}); is a login needed?")
        raise DownloadError(
            f"{address} is not there ({error.code} {error.reason}); is the base address right? EAN_ZOO_URL sets another"
        )


def _check_headers(answer: Any, address: str, part: Path, size: int, have: int) -> None:
    """Refuse what cannot be the file before it is read."""
    kind = answer.headers.get_content_type()
    if kind == "text/html":
        raise DownloadError(f"{address} is a web page, not a file; is the base address right? EAN_ZOO_URL sets another")
    if have:
        given = answer.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {have}-") or given.rpartition("/")[2] not in ("*", str(size)):
            part.unlink(missing_ok=True)
            raise _BrokenOffError(f"it answered with {given or 'no range'}, asked for bytes {have}- of {size}")
        return
    length = answer.headers.get("Content-Length")
    if length is not None and int(length) != size:
        raise DownloadError(f"{address} has {int(length):,} bytes, expected {size:,}; nothing was kept")


def _append(answer: Any, part: Path, have: int, size: int, timeout: float, progress: Callable[[int], None]) -> None:
    try:
        with part.open("ab" if have else "wb") as file:
            while True:
                try:
                    chunk = answer.read1(CHUNK)  # what there is, so that a stall loses nothing
                except TimeoutError as error:
                    raise _BrokenOffError(f"stalled after {have:,} of {size:,} bytes, for {timeout:g} s") from error
                except (http.client.HTTPException, OSError) as error:
                    raise _BrokenOffError(f"broke off after {have:,} of {size:,} bytes ({error})") from error
                if not chunk:
                    break
                file.write(chunk)
                have += len(chunk)
                progress(have)
                if have > size:
                    break
    except OSError as error:
        part.unlink(missing_ok=True)
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise DownloadError(
            f"{part.name.removesuffix('.part')} could not be written in {part.parent}: {why}; make room, or set "
            "EAN_HOME to a folder elsewhere"
        ) from error
    if have > size:
        part.unlink()
        raise DownloadError(f"the server sent more than the expected {size:,} bytes; nothing was kept")
    if have < size:
        raise _BrokenOffError(f"broke off after {have:,} of {size:,} bytes")


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

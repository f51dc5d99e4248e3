"""Download one file: retried, resumed after an interruption, and renamed only once its hash is verified."""

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

from ean_core.common.hashes import file_hash
from ean_core.common.writing import open_in_place, remove_link

CHUNK = 2**18  # bytes
LONGEST_WAIT = 60.0  # seconds, even if a server asks for more


class DownloadError(OSError):
    """A file could not be downloaded; the message says why and what to do."""


@dataclass(frozen=True)
class Patience:
    """Retry policy for poor connections.

    Args:
        tries: total number of attempts.
        timeout: seconds without data after which a connection counts as dead.
        backoff: delay in seconds before the second attempt, doubled for each further one.
    """

    tries: int = 5
    timeout: float = 30.0
    backoff: float = 1.0


#: The default retry policy.
USUAL = Patience()


class _BrokenOffError(Exception):
    """A connection failure that may be temporary.

    Args:
        reason: reason, for the message.
        wait: delay in seconds that the server asks for.
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
    """Download a file of known size and hash.

    Data are collected in ``PATH.part``, from which an interrupted download resumes; the file is renamed once verified.

    Args:
        address: ``http(s):`` or ``file:`` URL. Proxies are taken from the environment, as by curl.
        path: file to write; its folder must exist.
        size: size of the file, in bytes.
        sha256: hash of the file, in hexadecimal digits.
        patience: retry policy.
        progress: called with the number of bytes received so far.

    Raises:
        DownloadError: if the file is missing, forbidden, not the expected one, incomplete, or does not fit on the disk.
    """
    part = path.with_name(path.name + ".part")
    remove_link(part)
    begun = _length(part)
    _gather(address, part, size, patience, progress)
    found = file_hash(part)
    if found != sha256 and begun:  # an earlier attempt may have left part of another file
        part.unlink()
        _gather(address, part, size, patience, progress)
        found = file_hash(part)
    if found != sha256:
        part.unlink()
        raise DownloadError(f"{address} is not the published file: its SHA-256 is {found[:8]}…, expected {sha256[:8]}…")
    part.replace(path)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only; urllib would also follow them to FTP."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith(("http://", "https://")):
            raise DownloadError(
                f"{req.full_url} redirects to {newurl[:80]}; only http(s):// is followed, nothing was kept"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _gather(address: str, part: Path, size: int, patience: Patience, progress: Callable[[int], None]) -> None:
    """Download the address to ``part`` until it holds ``size`` bytes, with retries."""
    if _length(part) > size:
        part.unlink()
    missing = size - _length(part)
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise DownloadError(
            f"not enough disk space for {part.name.removesuffix('.part')} in {part.parent}: it needs "
            f"{missing / 1e6:.1f} MB, {free / 1e6:.1f} MB are free; free some space, or set EAN_HOME to another folder"
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
    kept = (
        f"; the first {_length(part):,} bytes are kept, the next attempt will resume from there"
        if _length(part)
        else ""
    )
    raise DownloadError(f"{address} could not be downloaded in {patience.tries} attempts: {reason}{kept}")


def _transfer(address: str, part: Path, size: int, timeout: float, progress: Callable[[int], None]) -> None:
    """Make one connection, and append the data received to ``part``."""
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
            raise DownloadError(f"{address} cannot be downloaded: {reason}") from error
        if isinstance(reason, FileNotFoundError) or address.startswith("file:"):
            raise DownloadError(f"{address} does not exist ({reason})") from error
        if isinstance(reason, TimeoutError):
            raise _BrokenOffError(f"no response within {timeout:g} s") from error
        raise _BrokenOffError(f"no connection ({reason})") from error
    with answer:
        resumed = answer.status == 206
        if have and not resumed:  # the server sends the whole file
            have = 0
        _check_headers(answer, address, part, size, have)
        _append(answer, part, have, size, timeout, progress)


def _refuse(error: urllib.error.HTTPError, address: str, part: Path) -> None:
    """Raise the error for an HTTP error status."""
    with error:
        if error.code == 416:  # the partial file does not match: start over
            part.unlink(missing_ok=True)
            raise _BrokenOffError("the server could not resume the partial download") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            after = error.headers.get("Retry-After", "")
            raise _BrokenOffError(
                f"the server responded {error.code} {error.reason}",
                min(float(after), LONGEST_WAIT) if after.isdecimal() else 0,
            )
        if error.code in (401, 403):
            raise DownloadError(f"{address}: access denied ({error.code} {error.reason}); is a login needed?")
        raise DownloadError(
            f"{address} not found ({error.code} {error.reason}); is the base address right? EAN_ZOO_URL sets another"
        )


def _check_headers(answer: Any, address: str, part: Path, size: int, have: int) -> None:
    """Reject a response that cannot be the file, before reading it."""
    kind = answer.headers.get_content_type()
    if kind == "text/html":
        raise DownloadError(f"{address} is a web page, not a file; is the base address right? EAN_ZOO_URL sets another")
    if have:
        given = answer.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {have}-") or given.rpartition("/")[2] not in ("*", str(size)):
            part.unlink(missing_ok=True)
            raise _BrokenOffError(f"the server sent {given or 'no range'} instead of bytes {have}- of {size}")
        return
    length = answer.headers.get("Content-Length", "").strip()
    if length.lstrip("0") != str(size).lstrip("0") and length:
        given = f"{int(length):,}" if length.isdecimal() and len(length) < 20 else repr(length[:20])
        raise DownloadError(f"{address} has {given} bytes, expected {size:,}; nothing was kept")


def _append(answer: Any, part: Path, have: int, size: int, timeout: float, progress: Callable[[int], None]) -> None:
    try:
        with open_in_place(part, "ab" if have else "wb") as file:
            while True:
                try:
                    chunk = answer.read1(CHUNK)  # whatever is available, so that a stall loses nothing
                except TimeoutError as error:
                    raise _BrokenOffError(f"stalled for {timeout:g} s after {have:,} of {size:,} bytes") from error
                except (http.client.HTTPException, OSError) as error:
                    raise _BrokenOffError(f"interrupted after {have:,} of {size:,} bytes ({error})") from error
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
            f"{part.name.removesuffix('.part')} could not be written to {part.parent}: {why}; free some space, or set "
            "EAN_HOME to another folder"
        ) from error
    if have > size:
        part.unlink()
        raise DownloadError(f"the server sent more than the expected {size:,} bytes; nothing was kept")
    if have < size:
        raise _BrokenOffError(f"interrupted after {have:,} of {size:,} bytes")


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

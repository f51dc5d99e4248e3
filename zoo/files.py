"""Locate the file of a published model: in the package, in the cache, or at an address."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from filelock import BaseFileLock, Timeout

from ean_core.common.hashes import file_hash
from ean_core.common.places import offline
from ean_core.common.writing import LinkError, file_lock

from .download import USUAL, DownloadError, Patience, fetch
from .index import Entry, base_of, find_entry
from .places import cache, places

HUB = "hf://"


def resolve(name: str) -> Path:
    """Return the verified file of a model, for ``ean://NAME``; the entry point ``ean.checkpoints``.

    Raises:
        ValueError: if there is no such model, or it has no weights yet.
        OSError: if its file cannot be obtained.
    """
    return locate(find_entry(name))


def locate(
    entry: Entry,
    *,
    patience: Patience = USUAL,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Return the verified file of a published model, downloading it if it is neither in the package nor in the cache.

    Concurrent processes download a file once. The address is ``EAN_ZOO_URL``, or else that of the index: ``http(s):``,
    ``file:``, or a Hugging Face Hub repository ``hf://OWNER/NAME[@REVISION]``.

    Args:
        entry: index entry of the model.
        patience: retry policy.
        progress: called with the number of bytes downloaded so far.

    Raises:
        DownloadError: if it cannot be downloaded, or ``EAN_OFFLINE`` forbids it.
        OSError: if the cache cannot be written.
    """
    found = at_hand(entry)
    if found is not None:
        return found
    base = _address(entry)
    path = cache() / entry.file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path.with_name(path.name + ".lock"))
    except LinkError:
        raise
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"the cache {path.parent} is not writable ({reason}); set EAN_HOME to a writable folder"
        ) from error
    try:
        found = at_hand(entry)  # another process may have downloaded it meanwhile
        if found is None:
            _fetch(base, entry, path, patience, progress)
        return found or path
    finally:
        lock.release()


def at_hand(entry: Entry) -> Path | None:
    """Return the verified file of a published model in the package or the cache, if there is one.

    A file that differs from the published one is ignored, with a warning.
    """
    for path in places(entry):
        if path.stat().st_size == entry.size and file_hash(path) == entry.sha256:
            return path
        _log(f"{path} differs from the published file, and is ignored", logging.WARNING)
    return None


def _address(entry: Entry) -> str:
    """Return the base address to download from, if downloading is allowed."""
    base = os.environ.get("EAN_ZOO_URL") or base_of(entry)
    missing = f"{entry.file} is neither in this installation nor in {cache()}"
    if not base:
        raise DownloadError(f"{missing}, and no download address is known; set EAN_ZOO_URL")
    if offline() and not base.startswith("file:"):
        raise DownloadError(f"{missing}, and EAN_OFFLINE forbids downloading it; unset it, or copy the file there")
    own = os.environ.get("EAN_ZOO_URL") == base  # only the user may name a local folder, not an index
    if not base.startswith(("http://", "https://", HUB)) and not (own and base.startswith("file:")):
        raise DownloadError(
            f"cannot download from {base!r}: expected http(s):// or {HUB}, or file:// if set in EAN_ZOO_URL"
        )
    return base


def _acquired(path: Path) -> BaseFileLock:
    """Acquire the lock of a file; other users of a shared cache can acquire it later."""
    lock = file_lock(path, mode=0o666)
    try:
        lock.acquire(timeout=5)
    except Timeout:
        _log(f"waiting for another process to download {path.name.removesuffix('.lock')}")
        lock.acquire()
    return lock


def _fetch(base: str, entry: Entry, path: Path, patience: Patience, progress: Callable[[int], None]) -> None:
    _log(f"downloading {entry.file} ({entry.size / 1e6:.1f} MB) from {base}")
    if base.startswith(HUB):
        _fetch_from_hub(base, entry, path)
        return
    address = f"{base.rstrip('/')}/{quote(entry.file)}"
    fetch(address, path, size=entry.size, sha256=entry.sha256, patience=patience, progress=progress)


def _fetch_from_hub(base: str, entry: Entry, path: Path) -> None:
    """Download through huggingface_hub, which has its own logins, mirrors and cache."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise DownloadError(f'{base} needs huggingface_hub: pip install "ean-zoo[hub]"') from error
    repository, _, revision = base.removeprefix(HUB).strip("/").partition("@")
    for force in (False, True):  # the file in the hub's own cache may be damaged
        try:
            found = hf_hub_download(repository, entry.file, revision=revision or None, force_download=force)
        except Exception as error:  # raised by different libraries, depending on the version
            raise DownloadError(f"{entry.file} could not be downloaded from {base}: {error}") from error
        if file_hash(Path(found)) == entry.sha256:
            fetch(Path(found).as_uri(), path, size=entry.size, sha256=entry.sha256)
            return
    raise DownloadError(f"{entry.file} of {base} is not the published file: its SHA-256 differs; nothing was kept")


def _log(text: str, level: int = logging.INFO) -> None:
    from mmengine.logging import print_log

    print_log(text, "current", level)

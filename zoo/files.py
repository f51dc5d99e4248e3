"""Where the file of a published model is: in the package, in the cache, or at an address."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from filelock import BaseFileLock, FileLock, Timeout
from mmengine.logging import print_log

from ean_core.common.places import home, offline
from ean_core.weights.files import file_hash

from .download import USUAL, DownloadError, Patience, fetch
from .index import Entry, base_of, find_entry

HUB = "hf://"


def resolve(name: str) -> Path:
    """The verified file of a model, for ``ean://NAME``: the entry point ``ean.checkpoints``.

    Raises:
        ValueError: if there is no such model, or no weights of it yet.
        OSError: if its file cannot be had.
    """
    return locate(find_entry(name))


def locate(
    entry: Entry,
    *,
    patience: Patience = USUAL,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """The verified file of a published model; fetched into the cache if it is neither there nor in the package.

    Several processes that ask for one file fetch it once. The address is ``EAN_ZOO_URL``, or else the index's:
    ``http(s):``, ``file:``, or a repository ``hf://OWNER/NAME[@REVISION]`` of the Hugging Face hub.

    Args:
        entry: of the index.
        patience: with the connection.
        progress: told the number of bytes fetched so far.

    Raises:
        DownloadError: if it cannot be fetched, or must not be, with ``EAN_OFFLINE`` set.
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
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"the cache {path.parent} cannot be written ({reason}); set EAN_HOME to a folder that can"
        ) from error
    try:
        found = at_hand(entry)  # another process may have fetched it meanwhile
        if found is None:
            _fetch(base, entry, path, patience, progress)
        return found or path
    finally:
        lock.release()


def at_hand(entry: Entry) -> Path | None:
    """The verified file of a published model in the package or the cache, if it is there.

    A file that is not what was published is passed over, with a warning.
    """
    for path in places(entry):
        if path.stat().st_size == entry.size and file_hash(path) == entry.sha256:
            return path
        print_log(f"{path} is not the file that was published, and is not used", "current", logging.WARNING)
    return None


def places(entry: Entry) -> Iterator[Path]:
    """Where files of a model's name are, the package first and then the cache."""
    if entry.packaged_file.is_file():
        yield entry.packaged_file
    cached = cache() / entry.file
    if cached.is_file():
        yield cached


def cache() -> Path:
    """The folder of fetched files."""
    return home() / "zoo"


def _address(entry: Entry) -> str:
    """Where files are fetched from, if they may be."""
    base = os.environ.get("EAN_ZOO_URL") or base_of(entry)
    missing = f"{entry.file} is neither in this installation nor in {cache()}"
    if not base:
        raise DownloadError(f"{missing}, and no address is known to fetch it from; set EAN_ZOO_URL to one")
    if offline() and not base.startswith("file:"):
        raise DownloadError(f"{missing}, and EAN_OFFLINE forbids to fetch it; unset that, or copy the file there")
    own = os.environ.get("EAN_ZOO_URL") == base  # a folder is for whoever set the variable to name, not for an index
    if not base.startswith(("http://", "https://", HUB)) and not (own and base.startswith("file:")):
        raise DownloadError(
            f"cannot fetch from {base!r}: expected an address with http(s):// or {HUB}; in EAN_ZOO_URL also file://"
        )
    return base


def _acquired(path: Path) -> BaseFileLock:
    """The lock of a file, held; others who use the cache may take it later, too."""
    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=5)
    except Timeout:
        print_log(f"waiting for another process that fetches {path.name.removesuffix('.lock')}", "current")
        lock.acquire()
    return lock


def _fetch(base: str, entry: Entry, path: Path, patience: Patience, progress: Callable[[int], None]) -> None:
    print_log(f"fetching {entry.file} ({entry.size / 1e6:.1f} MB) from {base}", "current")
    if base.startswith(HUB):
        _fetch_from_hub(base, entry, path)
        return
    address = f"{base.rstrip('/')}/{quote(entry.file)}"
    fetch(address, path, size=entry.size, sha256=entry.sha256, patience=patience, progress=progress)


def _fetch_from_hub(base: str, entry: Entry, path: Path) -> None:
    """Through huggingface_hub, which has logins, mirrors and a cache of its own."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise DownloadError(f'{base} needs huggingface_hub: pip install "ean-zoo[hub]"') from error
    repository, _, revision = base.removeprefix(HUB).strip("/").partition("@")
    for force in (False, True):  # what is in the hub's own cache may be damaged
        try:
            found = hf_hub_download(repository, entry.file, revision=revision or None, force_download=force)
        except Exception as error:  # of several libraries, by version
            raise DownloadError(f"{entry.file} could not be fetched from {base}: {error}") from error
        if file_hash(Path(found)) == entry.sha256:
            fetch(Path(found).as_uri(), path, size=entry.size, sha256=entry.sha256)
            return
    raise DownloadError(f"{entry.file} of {base} is not the published file: its SHA-256 differs; nothing was kept")

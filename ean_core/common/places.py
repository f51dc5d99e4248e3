"""Locations of data sets and downloads."""

from __future__ import annotations

import os
from pathlib import Path

#: Prefix of addresses of published checkpoints, ``ean://NAME``.
SCHEME = "ean://"


def home() -> Path:
    """The folder for all downloads: ``EAN_HOME``, or ``ean`` in the user's cache folder.

    Raises:
        OSError: if the user has no home folder.
    """
    given = os.environ.get("EAN_HOME")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    if cache:
        return Path(cache).expanduser() / "ean"
    try:
        return Path.home() / ".cache" / "ean"
    except RuntimeError as error:  # a container user without a passwd entry
        raise OSError("this user has no home folder; set EAN_HOME to a folder for downloads") from error


def offline() -> bool:
    """Whether ``EAN_OFFLINE`` forbids network access."""
    return os.environ.get("EAN_OFFLINE", "0") not in ("", "0")


def data_root() -> Path:
    """The folder of data sets: ``EAN_DATA``, or ``data`` in :func:`home`."""
    given = os.environ.get("EAN_DATA")
    return Path(given).expanduser() if given else home() / "data"

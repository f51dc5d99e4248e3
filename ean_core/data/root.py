"""Where data sets and downloads are."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder of everything that is fetched: ``EAN_HOME``, or ``ean`` in the user's cache."""
    given = os.environ.get("EAN_HOME")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).expanduser() / "ean"


def offline() -> bool:
    """Whether ``EAN_OFFLINE`` forbids the network."""
    return os.environ.get("EAN_OFFLINE", "0") not in ("", "0")


def data_root() -> Path:
    """The folder of data sets: ``EAN_DATA``, or ``data`` in :func:`home`."""
    given = os.environ.get("EAN_DATA")
    return Path(given).expanduser() if given else home() / "data"

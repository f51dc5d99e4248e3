"""Where data sets are."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path:
    """The folder of data sets: ``EAN_DATA``, or ``ean/data`` in the user's cache."""
    given = os.environ.get("EAN_DATA")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).expanduser() / "ean" / "data"

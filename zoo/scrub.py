"""Remove private information about the machine and its owner from records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

#: Absolute paths, including Windows paths and those of other users; not the path part of a URL.
_PATH = re.compile(
    r"(?<![\w./\\~…-])(?:~\w*/|/|[A-Za-z]:[\\/]|\\\\)(?:[^\s'\"=,;()\[\]{}|<>/\\]+[/\\])*[^\s'\"=,;()\[\]{}|<>/\\]+"
)
#: The same in quotes, where any character may occur, and as URLs.
_QUOTED = re.compile(r"(?<=['\"])(?:~\w*/|/|[A-Za-z]:[\\/]|\\\\)[^'\"]*(?=['\"])")
_FILE = re.compile(r"file://[^\s'\"]+")
_LOGIN = re.compile(r"(?<=://)[^\s/'\"]+@")
_GIVEN = re.compile(r"([\w.-]*(?:token|secret|passw|api_?key|credential)[\w.-]*[=:\s]\s*)[^\s'\"&,}]+", re.IGNORECASE)
_SECRET = re.compile(r"token|secret|passw|api_?key|credential", re.IGNORECASE)


def scrub(value: Any) -> Any:
    """Strip plain values of absolute paths (except their last part), logins in URLs, and secrets (found by their keys).

    Examples:
        >>> scrub('ean train mine.py --work-dir /home/me/runs/first load_from=https://me:word@host/a/b.pth')
        'ean train mine.py --work-dir …/first load_from=https://host/a/b.pth'
        >>> scrub({'api_key': 'abc', 'sizes': [1, 2]})
        {'api_key': '…', 'sizes': [1, 2]}
    """
    if isinstance(value, str):
        for pattern in (_FILE, _QUOTED, _PATH):
            value = pattern.sub(_last_name, value)
        return _GIVEN.sub(r"\1…", _LOGIN.sub("", value))
    if isinstance(value, Mapping):
        return {key: "…" if _is_secret(key, item) else scrub(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(item) for item in value]
    return value


def _is_secret(key: object, item: object) -> bool:
    return isinstance(key, str) and item not in (None, True, False) and bool(_SECRET.search(key))


def _last_name(match: re.Match[str]) -> str:
    return f"…/{PurePosixPath(match[0].replace(chr(92), '/')).name}"

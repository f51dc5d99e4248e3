"""Errors that several rooms raise."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any


class InUseError(OSError):
    """Another process works on the same files."""


def unknown_name(kind: str, given: object, valid: Iterable[object]) -> ValueError:
    """The error for a name outside a fixed set: what was given, what is nearest, what there is.

    Examples:
        >>> unknown_name("attention", "SEE", ["SE", "SGE", "DIA"])
        ValueError("unknown attention 'SEE'; did you mean 'SE' or 'SGE'? Choose from 'DIA', 'SE', 'SGE'")
    """
    names = sorted(set(valid), key=lambda name: (str(type(name)), name))
    text = {str(name).lower(): name for name in names}
    near = [repr(text[match]) for match in difflib.get_close_matches(str(given).lower(), text, n=2)]
    hint = f"; did you mean {' or '.join(near)}? Choose" if near else "; choose"
    return ValueError(f"unknown {kind} {given!r}{hint} from {', '.join(map(repr, names)) or '(nothing)'}")


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, old and new value of each entry that differs between nested settings.

    Examples:
        >>> list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}))
        [('a.c', 2, 3), ('d', None, 4)]
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield name, before, now

"""Errors that several rooms raise."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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

"""Translate parameter names of earlier versions into those of today's networks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: An attention module in a dict of the backbone: ``attention.layer1.…``, or ``attention.layer1_0.…`` if not shared.
_EARLIER = re.compile(r"((?:(?!layer\d).)*?)\battention\.(layer\d+)(?:_(\d+))?\.")


def current_name(name: str) -> str:
    """Return today's name of a tensor: a stage or a block holds its attention module.

    Examples:
        >>> current_name("backbone.attention.layer1.fc1.weight")
        'backbone.layer1.attention.fc1.weight'
        >>> current_name("attention.layer1_0.bias")
        'layer1.0.attention.bias'
        >>> current_name("layer1.0.attention.bias")
        'layer1.0.attention.bias'
    """
    match = _EARLIER.match(name)
    if match is None:
        return name
    owner = match[2] if match[3] is None else f"{match[2]}.{match[3]}"
    return f"{match[1]}{owner}.attention.{name[match.end() :]}"


def rename(state: dict[str, Any]) -> None:
    """Give the entries of a state dict today's names, in place."""
    for name in [name for name in state if current_name(name) != name]:
        state[current_name(name)] = state.pop(name)


def are_current(names: Iterable[str]) -> bool:
    """Whether all names are those of today's networks."""
    return all(current_name(name) == name for name in names)

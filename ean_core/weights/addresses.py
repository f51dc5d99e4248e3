"""``ean://NAME``: published checkpoints by name, for mmengine's loader and everything built on it.

``ean://NAME`` is the whole network, of which an EAN backbone takes its part by itself; ``ean://NAME/backbone`` is its
backbone alone, for modules of others.

The core knows no checkpoints. What does is found by the entry point group :data:`GROUP` when an address is first used,
so that ``custom_imports=['ean_core']`` is all that a config needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

SCHEME = "ean://"
#: What the names of a backbone's tensors begin with in the file of a whole network.
BACKBONE = "backbone."
_PART = "/" + BACKBONE.rstrip(".")
#: Of one function from the name of a model to its verified ``.safetensors`` file.
GROUP = "ean.checkpoints"


@CheckpointLoader.register_scheme(prefixes=SCHEME, force=True)  # a reloaded module registers again
def load_from_ean(filename: str, map_location: Any = None) -> dict[str, Any]:
    """A published network as mmengine's checkpoints are: ``state_dict`` and ``meta``, the strings in its file.

    Args:
        filename: ``ean://NAME`` or ``ean://NAME/backbone``.
        map_location: a device, as text or ``torch.device``; the CPU for anything else.

    Raises:
        ImportError: if nothing that knows the addresses is installed, or several things are.
        ValueError: if there is no model of that name, or no weights of it yet.
        OSError: if its file cannot be had.
    """
    path = resolve(filename)
    device = str(map_location) if isinstance(map_location, (str, torch.device)) else "cpu"
    state = load_file(path, device=device)
    if filename.endswith(_PART):
        state = backbone_of(state)
    return {"state_dict": state, "meta": read_metadata(path)}


def backbone_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the backbone in those of a whole network, by the names that they have in the backbone."""
    return {name.removeprefix(BACKBONE): value for name, value in state.items() if name.startswith(BACKBONE)}


def resolve(address: str) -> Path:
    """The verified file behind ``ean://NAME``, fetched if need be; errors as of :func:`load_from_ean`."""
    return _resolver()(address.removeprefix(SCHEME).removesuffix(_PART))


def read_metadata(path: Path) -> Mapping[str, str]:
    """The strings in the header of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


@cache
def _resolver() -> Callable[[str], Path]:
    # An editable and a usual installation side by side declare the same function twice.
    found = {point.value: point for point in entry_points(group=GROUP)}
    if len(found) != 1:
        problem = f"{', '.join(sorted(found))} all do" if found else "nothing installed does"
        raise ImportError(
            f"{SCHEME} addresses need one package that declares the entry point group {GROUP!r}, as ean-zoo does; "
            f"{problem}. Install ean-zoo, and only it: pip install ean-zoo"
        )
    return next(iter(found.values())).load()

"""``ean://NAME``: published checkpoints by name, for mmengine's loader and everything built on it.

``ean://NAME`` is the whole network, from which an EAN backbone loads its own part; ``ean://NAME/backbone`` is its
backbone alone, for third-party modules.

The core itself knows no checkpoints. The package that does is found through the entry point group :data:`GROUP` when an
address is first used, so a config only needs ``custom_imports=['ean_core']``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ean_core.common.places import SCHEME

#: Maximum size in bytes of the header of a safetensors file; 100 bytes per tensor are usual.
MAX_HEADER = 2**22
#: Prefix of the backbone's tensor names in the file of a whole network.
BACKBONE = "backbone."
_PART = "/" + BACKBONE.rstrip(".")
#: Entry point group of the function that maps a model's name to its verified ``.safetensors`` file.
GROUP = "ean.checkpoints"


def load_from_ean(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load a published network in mmengine's checkpoint format: ``state_dict``, and the file's strings as ``meta``.

    Args:
        filename: ``ean://NAME`` or ``ean://NAME/backbone``.
        map_location: device, as text or ``torch.device``; anything else means the CPU.

    Raises:
        ImportError: if no installed package resolves these addresses, or several do.
        ValueError: if there is no model of that name, or it has no weights yet.
        OSError: if its file cannot be obtained.
    """
    path = resolve(filename)
    device = str(map_location) if isinstance(map_location, (str, torch.device)) else "cpu"
    check_safetensors(path)
    state = load_file(path, device=device)
    if filename.endswith(_PART):
        state = backbone_of(state)
    return {"state_dict": state, "meta": read_metadata(path)}


def backbone_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the backbone's tensors from those of a whole network, with the prefix removed from their names."""
    return {name.removeprefix(BACKBONE): value for name, value in state.items() if name.startswith(BACKBONE)}


def resolve(address: str) -> Path:
    """Return the verified file for ``ean://NAME``, downloaded if necessary; errors as in :func:`load_from_ean`."""
    return _resolver()(address.removeprefix(SCHEME).removesuffix(_PART))


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata strings in the header of a safetensors file.

    Raises:
        ValueError: if it is not a safetensors file.
    """
    check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error


def check_safetensors(path: Path) -> None:
    """Refuse a safetensors file whose header exceeds the file or :data:`MAX_HEADER`.

    A header can list a million empty tensors, each of which takes a kilobyte of memory.

    Raises:
        ValueError: if it does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > min(size - 8, MAX_HEADER):
        raise ValueError(
            f"{path} is not a complete safetensors file: its header claims {header:,} bytes; the file has {size:,}, "
            f"and headers have at most {MAX_HEADER:,}"
        )


@cache
def _resolver() -> Callable[[str], Path]:
    # An editable and a regular installation side by side declare the same function twice.
    found = {point.value: point for point in entry_points(group=GROUP)}
    if len(found) != 1:
        problem = f"{', '.join(sorted(found))} all do" if found else "no installed package does"
        raise ImportError(
            f"{SCHEME} addresses need exactly one package that declares the entry point group {GROUP!r}, as ean-zoo "
            f"does; {problem}. Install ean-zoo, and only it: pip install ean-zoo"
        )
    return next(iter(found.values())).load()

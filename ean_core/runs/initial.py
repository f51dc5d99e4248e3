"""Initial weights of a config, checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_torchvision_models

from ean_core.common.places import SCHEME, offline
from ean_core.weights.addresses import resolve
from ean_core.weights.files import WeightsFile, read_state_dict
from ean_core.weights.loading import PretrainedOrRaise

from .folder import chosen_checkpoint
from .signatures import class_of

_TORCHVISION = "torchvision://"


def check_weights(config: Config) -> None:
    """Refuse to start without the weights that ``init_cfg`` of this package's networks names; download them.

    Raises:
        FileNotFoundError: if a file does not exist, or cannot be downloaded.
        ValueError: if there is no model of that name.
    """
    scope = config.get("default_scope") or "mmengine"
    for entry, address in _named(config.get("model"), "model", scope):
        instead = (
            f"give a file with --cfg-options {entry}.checkpoint=FILE, or start from random weights with {entry}=None"
        )
        try:
            _obtain(address)
        except FileNotFoundError:
            raise FileNotFoundError(f"{entry}: there is no file {address}; {instead}") from None
        except OSError as error:
            raise FileNotFoundError(f"{entry}: {address} cannot be downloaded ({error}); {instead}") from error
        except ValueError as error:
            raise ValueError(f"{entry}: {error}; {instead}") from error


def checkpoint_to_load(source: str) -> str:
    """Return ``load_from`` of a config, with the folder of a run replaced by the checkpoint that represents the run.

    Raises:
        FileNotFoundError: if there is no such file, or no checkpoint in the folder.
        ValueError: if it cannot be read as weights.
    """
    if "://" in source:
        return source
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"load_from={source}: there is no such file; give a checkpoint, or the folder of a run")
    path = chosen_checkpoint(path)
    _ = WeightsFile(path).content  # which mmengine would read after everything is built, and name no file
    return str(path)


def _named(settings: Any, entry: str, scope: str) -> Iterator[tuple[str, str]]:
    """Yield the entry and the address of each ``init_cfg`` of type ``Pretrained`` of this package's networks."""
    if not isinstance(settings, Mapping):
        return
    kind = class_of(settings.get("type"), [MODELS], scope)
    first = settings.get("init_cfg")
    if isinstance(kind, type) and issubclass(kind, PretrainedOrRaise):
        parts = (
            {f".{number}": each for number, each in enumerate(first)} if isinstance(first, Sequence) else {"": first}
        )
        for place, each in parts.items():
            if isinstance(each, Mapping) and each.get("type") == "Pretrained" and isinstance(each["checkpoint"], str):
                yield f"{entry}.init_cfg{place}", each["checkpoint"]
    for name, value in settings.items():
        if name != "init_cfg":
            yield from _named(value, f"{entry}.{name}", scope)


def _obtain(address: str) -> None:
    """Download the weights of an address if they are not here yet; raises where they cannot be had."""
    if "://" not in address or address.startswith("file:"):
        if not Path(address.removeprefix("file://")).expanduser().is_file():
            raise FileNotFoundError(address)
    elif address.startswith(SCHEME):
        resolve(address)
    elif not _is_cached(address) or offline():  # an unknown name is said first
        read_state_dict(address)


def _is_cached(address: str) -> bool:
    """Whether PyTorch's cache has the file of an address already."""
    if address.startswith(_TORCHVISION):
        known = get_torchvision_models()
        name = address.removeprefix(_TORCHVISION)
        if name not in known:
            near = get_close_matches(name, known, n=2)
            raise ValueError(f"torchvision has no weights {name!r}{'; did you mean ' * bool(near)}{' or '.join(near)}")
        address = known[name]
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(address).path).name).is_file()

"""Initial weights of a config, checked before anything is built."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from ean_core.common.config import config_name, load_config, packaged_configs
from ean_core.common.places import SCHEME
from ean_core.weights.addresses import resolve
from ean_core.weights.files import WeightsFile, download_address, is_downloaded, read_state_dict
from ean_core.weights.loading import PretrainedOrRaise

from .folder import chosen_checkpoint
from .signatures import class_of

#: The depth in the name of a config.
_DEPTH = re.compile(r"(?<=resnet)\d+")


def check_weights(config: Config) -> None:
    """Refuse to start without the weights that ``init_cfg`` of this package's networks names; download them.

    Raises:
        FileNotFoundError: if a file does not exist, or cannot be downloaded.
        ValueError: if there is no model of that name.
    """
    scope = config.get("default_scope") or "mmengine"
    for entry, address in _named(config.get("model"), "model", scope):
        give = f"give a file with --cfg-options {entry}.checkpoint=FILE"
        instead = f"{give}, or start from random weights with {entry}=None"
        try:
            _obtain(address)
        except FileNotFoundError:
            raise FileNotFoundError(f"{entry}: there is no file {address}; {instead}") from None
        except OSError as error:
            url = download_address(address)
            elsewhere = f"; without network access, {give}" + f" (from {url})" * (url != address)
            light = _without_downloads(config)
            last = f"use {light}, which needs no download" if light else f"start from random weights with {entry}=None"
            raise FileNotFoundError(
                f"{entry}: {address} cannot be downloaded ({error}){elsewhere}, or {last}"
            ) from error
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


def _without_downloads(config: Config) -> str | None:
    """Return the packaged config of another depth, for the same data and attention, that downloads no weights."""
    name = config_name(config) or ""
    alike = sorted(other for other in packaged_configs() if _DEPTH.sub("", other) == _DEPTH.sub("", name))
    return next((other for other in alike if other != name and not _downloads(load_config(other))), None)


def _downloads(config: Config) -> bool:
    """Whether the networks of a config start from weights that come from elsewhere than this package's models."""
    named = _named(config.get("model"), "model", config.get("default_scope") or "mmengine")
    return any("://" in address and not address.startswith(SCHEME) for _, address in named)


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
    elif not is_downloaded(address):
        read_state_dict(address)

"""A run's folder: its checkpoints, and whether a config agrees with what it was trained with."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ean_core.common.errors import differences
from ean_core.weights.files import read_meta

from .settings import read_settings


def latest_checkpoint(work_dir: str | os.PathLike[str]) -> Path | None:
    """The checkpoint of the last finished epoch in a work directory, or None."""
    found = {int(path.stem.split("_")[1]): path for path in Path(work_dir).glob("epoch_*.pth")}
    return found[max(found)] if found else None


def chosen_checkpoint(path: Path) -> Path:
    """A checkpoint as it is; of the folder of a run the one that was best on validation images, or its last.

    Raises:
        FileNotFoundError: if a folder holds none.
    """
    if not path.is_dir():
        return path
    best = sorted(path.glob("best_*.pth"), key=lambda found: found.stat().st_mtime)
    chosen = best[-1] if best else latest_checkpoint(path)
    if chosen is None:
        raise FileNotFoundError(f"there is no checkpoint in the folder {path}")
    return chosen


#: What a resumed run must have in common with the run it goes on with.
RUN = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "randomness")


#: What a network must have in common with the one whose checkpoint it takes.
NETWORK = ("model.num_classes", "model.data_preprocessor", "model.backbone")


def check_same_settings(before: Config | Mapping[str, Any], now: Config, names: Sequence[str], what: str) -> None:
    """Refuse to go on with a run, or to take a checkpoint, under other settings than it was made with.

    Args:
        before, now: the settings, then and now.
        names: the entries that count.
        what: the beginning of the message: who has other settings.

    Raises:
        ValueError: that names the first entries that differ.
    """
    different = [entry for name in names for entry in differences(_entry(before, name), _entry(now, name), name)]
    if different:
        listing = "; ".join(f"{name} is {old!r} there, {new!r} here" for name, old, new in different[:4])
        raise ValueError(f"{what} other settings: {listing}. Give the same --cfg-options, or another file or folder")


def check_same_network(checkpoint: Path, config: Config) -> None:
    """Refuse a checkpoint of ours whose network is not the config's, also where the tensors would fit.

    A shared module has the same tensors whatever the scheme, so only the settings in the checkpoint tell networks
    apart. Any sub-network of a supernet is allowed.

    Raises:
        ValueError: that names the entries that differ.
    """
    before = trained_config(checkpoint)
    if before is None:
        return
    now = copy.deepcopy(config)
    for settings in (before, now):  # where weights came from before training says nothing of the network
        ((settings.get("model") or {}).get("backbone") or {}).pop("init_cfg", None)
    if "scheme" in (before.get("default_hooks") or {}):
        now.model.backbone.scheme = before.model.backbone.scheme
    check_same_settings(before, now, NETWORK, f"{checkpoint} was trained with")


def trained_config(checkpoint: Path) -> Config | None:
    """The settings in a checkpoint of ours; None for other files.

    Raises:
        ValueError: if there is anything in them but plain settings.
    """
    if checkpoint.suffix != ".pth" or not checkpoint.is_file():
        return None
    text = read_meta(checkpoint).get("cfg")
    if not isinstance(text, str):
        return None
    try:
        return read_settings(text)
    except ValueError as error:
        raise ValueError(f"the settings in {checkpoint} cannot be read: {error}") from error


def _entry(config: Config | Mapping[str, Any], name: str) -> Any:
    """An entry by its dotted name, as plain values."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if hasattr(value, "get") else None
    return json.loads(json.dumps(value, default=str))

"""A run's folder: the files in it, and whether a config agrees with what they were made with."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ean_core.common.errors import differences
from ean_core.common.record import read_record
from ean_core.weights.files import WeightsFile, read_meta

from .logs import training_log
from .settings import read_settings

#: Files of a run: progress during ``ean train``, records at the end of ``ean train``, ``ean test`` and ``ean time``.
PROGRESS, RECORD, TEST, TIMING = "progress.json", "record.json", "test.json", "timing.json"
#: Settings that a resumed run must have in common with the run it goes on with.
RUN_SETTINGS = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "randomness")
#: Settings that a network must have in common with the one whose checkpoint it takes.
NETWORK_SETTINGS = ("model.num_classes", "model.data_preprocessor", "model.backbone")


@dataclass(frozen=True)
class Run:
    """The folder of a training run: the one place that knows which files it holds.

    Files are read when first asked for, and once: a new object sees what was written since.

    Args:
        folder: of ``ean train``, with what ``ean test`` and ``ean time`` wrote into it.

    Examples:
        >>> Run(Path('work_dirs/none')).record is None
        True
    """

    folder: Path

    @cached_property
    def latest(self) -> Path | None:
        """The checkpoint of the last finished epoch, or of the last iterations where those are counted."""
        return max(self.folder.glob("epoch_*.pth"), key=_number, default=None)

    @cached_property
    def best(self) -> Path | None:
        """The checkpoint that was best on validation images, where the config selects one."""
        return max(self.folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime, default=None)

    @property
    def chosen(self) -> Path:
        """The checkpoint that stands for the run: the best one, or else the latest.

        Raises:
            FileNotFoundError: if there is none.
        """
        chosen = self.best or self.latest
        if chosen is None:
            raise FileNotFoundError(f"there is no checkpoint in the folder {self.folder}")
        return chosen

    @property
    def is_training(self) -> bool:
        """Whether a training has begun here: it left its progress, its record or a checkpoint."""
        if self.path(PROGRESS).is_file() or any(self.folder.glob("epoch_*.pth")):
            return True
        try:
            return self.record is not None and self.record.get("kind") == "training"
        except ValueError:  # another program's file of that name
            return False

    @cached_property
    def progress(self) -> Mapping[str, Any] | None:
        """``progress.json``, kept from the start on by :class:`~ean_core.runs.hooks.ProgressFileHook`; None where the
        config lacks that hook or the run was trained before there was one.

        Raises:
            ValueError: if the file is damaged or another program's.
        """
        path = self.path(PROGRESS)
        if not path.exists():
            return None
        try:
            progress = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if not isinstance(progress, dict) or not {"iteration", "updated", "finished"} <= progress.keys():
            raise ValueError(f"{path} does not tell the progress of a training")
        return progress

    @property
    def finished(self) -> bool:
        """Whether its training has ended."""
        return self.path(RECORD).exists()

    @cached_property
    def record(self) -> Mapping[str, Any] | None:
        """``record.json``, written at the end of training; None before."""
        return self._read(RECORD)

    @cached_property
    def validations(self) -> Sequence[Mapping[str, Any]]:
        """The ``epoch`` or ``iteration`` and the metrics of each validation so far, oldest first."""
        if self.progress:
            return self.progress["validations"]
        record = self.record or {}
        if "validations" not in record and record.get("validation"):  # of versions that recorded only the last one
            return [{"epoch": record["epochs"], **record["validation"]}]
        return record.get("validations", [])

    @cached_property
    def test(self) -> Mapping[str, Any] | None:
        """``test.json``, written by ``ean test``; None before."""
        return self._read(TEST)

    @cached_property
    def timing(self) -> Mapping[str, Any] | None:
        """``timing.json``, written by ``ean time``; None before."""
        return self._read(TIMING)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings of its last start: of the newest start's dumped config, else of the record, else of the latest
        checkpoint; empty where no file has them.

        Raises:
            ValueError: if the file that has them is damaged.
        """
        dumped = max(self.folder.glob("*/vis_data/config.py"), default=None)
        if dumped:
            return read_settings(dumped.read_text(encoding="utf-8")).to_dict()
        if self.record:
            return self.record["settings"]
        config = trained_config(self.latest) if self.latest else None
        return config.to_dict() if config else {}

    @cached_property
    def config(self) -> str | None:
        """The name of its config."""
        if self.record:
            return self.record["config"]
        return next((path.stem for path in sorted(self.folder.glob("*.py"))), None)

    def log(self) -> str:
        """What mmengine logged of its iterations, as JSON lines; see :func:`~ean_core.runs.logs.training_log`."""
        return training_log(self.folder)

    def path(self, name: str) -> Path:
        """Where a file of this name lies in the folder."""
        return self.folder / name

    def _read(self, name: str) -> Mapping[str, Any] | None:
        path = self.path(name)
        return read_record(path) if path.exists() else None


def chosen_checkpoint(path: Path) -> Path:
    """A checkpoint as it is; of the folder of a run the one that stands for it.

    Raises:
        FileNotFoundError: if a folder holds none.
    """
    return Run(path).chosen if path.is_dir() else path


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


def check_same_network(checkpoint: Path | WeightsFile, config: Config) -> None:
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
    check_same_settings(before, now, NETWORK_SETTINGS, f"{checkpoint} was trained with")


def trained_config(checkpoint: Path | WeightsFile) -> Config | None:
    """The settings in a checkpoint of ours; None for other files.

    Raises:
        ValueError: if there is anything in them but plain settings.
    """
    path = Path(checkpoint)
    if path.suffix != ".pth" or not path.is_file():
        return None
    text = read_meta(checkpoint).get("cfg")
    if not isinstance(text, str):
        return None
    try:
        return read_settings(text)
    except ValueError as error:
        raise ValueError(f"the settings in {checkpoint} cannot be read: {error}") from error


def _number(checkpoint: Path) -> int:
    """The epoch in the name of a checkpoint."""
    return int(checkpoint.stem.rpartition("_")[2])


def _entry(config: Config | Mapping[str, Any], name: str) -> Any:
    """An entry by its dotted name, as plain values."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if hasattr(value, "get") else None
    return json.loads(json.dumps(value, default=str))

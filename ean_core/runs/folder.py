"""A run's folder: its files, and checks of a config against the settings of the run."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from ean_core.backbone import EANResNet, EANResNetCIFAR
from ean_core.common.errors import differences
from ean_core.common.record import read_json, read_record, read_small
from ean_core.weights.addresses import read_metadata
from ean_core.weights.files import WeightsFile, read_meta

from .logs import training_log
from .settings import read_settings

#: Files of a run: progress during ``ean train``, records at the end of ``ean train``, ``ean test`` and ``ean time``.
PROGRESS, RECORD, TEST, TIMING = "progress.json", "record.json", "test.json", "timing.json"
#: Record of ``ean fold``.
FOLD = "fold.json"
#: Name of the checkpoint of an epoch, or of an iteration where training counts no epochs.
_REGULAR = re.compile(r"(?:epoch|iter)_(\d+)\.pth")
#: Settings that a start begins with, relative to its folder, which is named after its second.
START_SETTINGS = "vis_data/config.py"
#: Settings that must not change when a run is resumed.
RUN_SETTINGS = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "randomness")
#: Settings that a network must share with the checkpoint it loads.
NETWORK_SETTINGS = ("model.num_classes", "model.data_preprocessor", "model.backbone")


@dataclass(frozen=True)
class Run:
    """The folder of a training run: the single place that knows its files.

    Each file is read once, on first access; create a new object to see later changes.

    Args:
        folder: folder of ``ean train``, including the files that ``ean test`` and ``ean time`` write there.

    Examples:
        >>> Run(Path('work_dirs/none')).record is None
        True
    """

    folder: Path

    @cached_property
    def latest(self) -> Path | None:
        """The checkpoint of the last finished epoch, or of the last iteration that was saved."""
        saved = {path: match for path in self.folder.glob("*.pth") if (match := _REGULAR.fullmatch(path.name))}
        return max(saved, key=lambda path: int(saved[path][1]), default=None)

    @cached_property
    def best(self) -> Path | None:
        """The checkpoint that was best on validation images, if the config selects one."""
        return max(self.folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime, default=None)

    @property
    def chosen(self) -> Path:
        """The checkpoint that represents the run: the best one, otherwise the latest.

        Raises:
            FileNotFoundError: if there is none.
        """
        chosen = self.best or self.latest
        if chosen is None:
            raise FileNotFoundError(f"there is no checkpoint in the folder {self.folder}")
        return chosen

    @property
    def is_training(self) -> bool:
        """Whether a training has started here: there is a progress file, a record or a checkpoint."""
        if self.path(PROGRESS).is_file() or self.latest is not None:
            return True
        try:
            return self.record is not None and self.record.get("kind") == "training"
        except ValueError:  # a file of that name from another program
            return False

    @cached_property
    def progress(self) -> Mapping[str, Any] | None:
        """``progress.json``, kept from the start by :class:`~ean_core.runs.progress_file.ProgressFileHook`; None if the
        config lacks that hook or the run predates it.

        Raises:
            ValueError: if the file is damaged or was written by another program.
        """
        path = self.path(PROGRESS)
        if not path.exists():
            return None
        progress = read_json(path, "is damaged")
        if not isinstance(progress, dict) or not {"iteration", "updated", "finished"} <= progress.keys():
            raise ValueError(f"{path} is not a progress file of a training")
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
        if self.progress and not (self.progress["finished"] and self.record):
            return self.progress["validations"]
        record = self.record or {}
        if "validations" not in record and record.get("validation"):  # from versions that recorded only the last one
            return [{"epoch": record["epochs"], **record["validation"]}]
        return record.get("validations", [])

    @property
    def chosen_validation(self) -> Mapping[str, Any] | None:
        """The validation of the checkpoint that represents a finished run: of the selected one, otherwise of the last;
        None if it was not validated, or the training has not ended.
        """
        record = self.record or {}
        unit, length = ("iteration", "iterations") if record.get("iterations") else ("epoch", "epochs")
        best = record.get("best") or {unit: record.get(length)}
        return next((one for one in self.validations if record and one.get(unit) == best.get(unit)), None)

    @cached_property
    def test(self) -> Mapping[str, Any] | None:
        """``test.json``, written by ``ean test``; None before."""
        return self._read(TEST)

    @cached_property
    def timing(self) -> Mapping[str, Any] | None:
        """``timing.json``, written by ``ean time``; None before."""
        return self._read(TIMING)

    @cached_property
    def fold(self) -> Mapping[str, Any] | None:
        """``fold.json``, written by ``ean fold``; None in other folders."""
        return self._read(FOLD)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings of its last start of training: from the newest dumped config, otherwise the record, otherwise
        the latest checkpoint; empty if no file has them.

        Raises:
            ValueError: if the file with the settings is damaged.
        """
        starts = sorted(path.parents[1] for path in self.folder.glob(f"*/{START_SETTINGS}"))
        trained = [start for start in starts if not (start / f"{start.name}.json").exists()]  # which a test leaves
        if trained:
            return read_settings(read_small(trained[-1] / START_SETTINGS).decode("utf-8")).to_dict()
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
        """Return mmengine's log of its iterations, as JSON lines; see :func:`~ean_core.runs.logs.training_log`."""
        return training_log(self.folder)

    def path(self, name: str) -> Path:
        """Return the path of a file of this name in the folder."""
        return self.folder / name

    def _read(self, name: str) -> Mapping[str, Any] | None:
        path = self.path(name)
        return read_record(path) if path.exists() else None


def run_options(settings: Mapping[str, Any], config: Config) -> list[str]:
    """Return the ``--cfg-options`` that turn a config into the settings of a run, except those of how and where it ran.

    Lists of other lists or mappings, which no option can express, are left out.
    """
    wanted = ("model", "optim_wrapper", "param_scheduler", "train_cfg", "randomness", "image_size", "sync_bn")
    names = [name for name in settings if name in wanted or name.endswith(("_dataloader", "_evaluator"))]
    changes = (change for name in names for change in differences(_entry(config, name), _entry(settings, name), name))
    return [option for name, _, value in changes for option in _options(name, value)]


def _options(name: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [option for key, inner in value.items() for option in _options(f"{name}.{key}", inner)]
    if isinstance(value, list):
        whole = not any(isinstance(inner, (list, dict)) for inner in value)
        return [f"{name}=[{','.join(map(str, value))}]"] if whole else []
    return [f"{name}={value}"]


def chosen_checkpoint(path: Path) -> Path:
    """Return the path of a checkpoint unchanged; for a run's folder, return the checkpoint that represents the run.

    Raises:
        FileNotFoundError: if the folder has no checkpoint.
    """
    return Run(path).chosen if path.is_dir() else path


def check_same_settings(before: Config | Mapping[str, Any], now: Config, names: Sequence[str], what: str) -> None:
    """Refuse to continue a run, or to use a checkpoint, with settings other than its own.

    Args:
        before, now: the settings of the run or checkpoint, and the current ones.
        names: the entries to compare.
        what: start of the message: what has other settings.

    Raises:
        ValueError: if settings differ; the message lists the first entries that do.
    """
    different = [entry for name in names for entry in differences(_entry(before, name), _entry(now, name), name)]
    if different:
        listing = "; ".join(f"{name} is {old!r} there, {new!r} here" for name, old, new in different[:4])
        raise ValueError(f"{what} other settings: {listing}. Give the same --cfg-options, or another file or folder")


def check_same_network(checkpoint: Path | WeightsFile, config: Config) -> None:
    """Refuse an EAN checkpoint trained with a network other than the config's, even if the tensors would fit.

    A shared module has the same tensors for every scheme, so only the settings in the checkpoint, or the scheme in the
    header of a published file, tell such networks apart. Any sub-network of a supernet is allowed.

    Raises:
        ValueError: if the networks differ; the message lists the entries that do.
    """
    path = Path(checkpoint)
    if path.suffix == ".safetensors" and path.is_file():
        _check_same_scheme(path, config)
    before = trained_config(checkpoint)
    if before is None:
        return
    now = copy.deepcopy(config)
    for settings in (before, now):  # the source of initial weights is not part of the network
        ((settings.get("model") or {}).get("backbone") or {}).pop("init_cfg", None)
    if "scheme" in (before.get("default_hooks") or {}):
        now.model.backbone.scheme = before.model.backbone.scheme
    check_same_settings(before, now, NETWORK_SETTINGS, f"{checkpoint} was trained with")


def _check_same_scheme(path: Path, config: Config) -> None:
    """Refuse a published file whose header states another scheme than that of the config's backbone."""
    stated = read_metadata(path).get("scheme")
    settings = (config.get("model") or {}).get("backbone") or {}
    if stated is None or settings.get("type") not in (EANResNet.__name__, EANResNetCIFAR.__name__):
        return
    own = str(MODELS.build({**settings, "init_cfg": None}).scheme)
    if own != stated:
        raise ValueError(
            f"{path} is of a network with scheme {stated}, and the config has {own}; give --cfg-options "
            f"model.backbone.scheme={stated}"
        )


def trained_config(checkpoint: Path | WeightsFile) -> Config | None:
    """Return the settings stored in an mmengine checkpoint; None for other files.

    Raises:
        ValueError: if they contain anything but plain settings.
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


def _entry(config: Config | Mapping[str, Any], name: str) -> Any:
    """Return an entry by its dotted name, as plain values."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if hasattr(value, "get") else None
    return json.loads(json.dumps(value, default=str))

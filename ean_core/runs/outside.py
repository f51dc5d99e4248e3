"""Configs of other OpenMMLab libraries in our trainings: our runner and hooks, and their data sets' missing files."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ean_core.common.config import config_root

#: Hooks that mmengine's runner brings along, with the settings of the config.
_USUAL = ("logger", "checkpoint", "sync_buffers")
#: Data sets that only repeat or join others.
_WRAPPERS = ("RepeatDataset", "ConcatDataset", "ClassBalancedDataset", "MultiImageMixDataset")


def adopt(config: Config) -> None:
    """Add our runner and hooks to a config that does not use them, as one of another library.

    They make checkpoints atomic and plain, write progress and record, and let a resumed run repeat its dropout. Hooks
    that the config has, or has set to None, stay as they are.
    """
    ours = Config.fromfile(config_root() / "_base_" / "runtime.py")
    if config.get("runner_type", "Runner") != "Runner":
        return
    config.runner_type = ours.runner_type
    hooks = {name: hook for name, hook in ours.default_hooks.items() if name not in _USUAL}
    hooks["dropout"] = {"type": "DropoutSeedHook"}
    present = config.get("default_hooks") or {}
    types = {hook["type"] for hook in [*present.values(), *(config.get("custom_hooks") or [])] if hook}
    missing = {name: copy.deepcopy(hook) for name, hook in hooks.items() if hook["type"] not in types}
    config.default_hooks = {**missing, **present}


@contextmanager
def naming_missing_data(
    datasets: Mapping[str, Any], place: str = "--cfg-options {entry}.data_root=FOLDER"
) -> Iterator[None]:
    """Name the files that data sets lack, if building them fails.

    Args:
        datasets: settings of the data sets that the block builds, by the entry that holds them, such as
            ``train_dataloader.dataset``; ``data_root``, ``data_prefix`` and ``ann_file`` are looked at.
        place: how to say where the data are.

    Raises:
        FileNotFoundError: in place of an assertion or an error about a missing file.
    """
    try:
        yield
    except (AssertionError, FileNotFoundError, NotADirectoryError) as error:
        for name, settings in datasets.items():
            for entry, kind, path in _files(settings, name):
                if not path.exists():
                    raise FileNotFoundError(
                        f"{kind} has no data at {path.absolute()} ({entry}); download it as the documentation of its "
                        f"library says, or set where it is: {place.format(entry=entry)}"
                    ) from error
        raise


def datasets_of(config: Config, *loaders: str) -> dict[str, Any]:
    """Return the settings of the data sets of a config's loaders, for :func:`naming_missing_data`."""
    return {f"{loader}.dataset": (config.get(loader) or {}).get("dataset") for loader in loaders}


def _files(dataset: Any, entry: str) -> Iterator[tuple[str, str, Path]]:
    """Yield entry, type and path of each folder and file that a data set's settings name."""
    if not isinstance(dataset, Mapping):
        return
    kind = str(dataset.get("type"))
    if kind.rpartition(".")[2] in _WRAPPERS:
        inner = dataset.get("datasets") or [dataset.get("dataset")]
        for number, each in enumerate(inner):
            yield from _files(each, f"{entry}.datasets.{number}" if "datasets" in dataset else f"{entry}.dataset")
        return
    root, prefixes = dataset.get("data_root"), dataset.get("data_prefix")
    if not isinstance(root, str) or "://" in root:
        return
    named = list(prefixes.values()) if isinstance(prefixes, Mapping) else [prefixes]
    for name in ["", *named, dataset.get("ann_file")]:
        if isinstance(name, str):
            yield entry, kind, Path(root) / name

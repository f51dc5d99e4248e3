"""Configs of other OpenMMLab libraries in our trainings: our runner and hooks, and their data sets' missing files."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from ean_core.common.config import config_root

from .signatures import arguments_of, class_of

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


def check_data(config: Config, *loaders: str) -> None:
    """Refuse to start without the files of data sets, before anything else takes time or prints.

    Data sets with a class method ``check_files``, called with their settings, say themselves what is missing. Those of
    other libraries are refused if none of the files that their settings name exists.

    Args:
        config: config of the run.
        loaders: those that it needs, such as ``train_dataloader``.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: if a data set has no images of the kind that the config asks for.
    """
    scope = config.get("default_scope") or "mmengine"
    for entry, settings in datasets_of(config, *loaders).items():
        for inner, kind, each in _inside(settings, entry, scope):
            if check := getattr(kind, "check_files", None):
                check(**{name: value for name, value in each.items() if name != "type"})
            elif (
                isinstance(kind, type)
                and issubclass(kind, BaseDataset)
                and "download" not in (arguments_of(kind) or {"download"})
            ):
                paths = [path for _, _, path in _files(each, inner)]
                if paths and not any(path.exists() for path in paths) and not each.get("backend_args"):
                    with naming_missing_data({inner: each}):
                        raise FileNotFoundError(paths[0])


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


def _inside(dataset: Any, entry: str, scope: str) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield entry, class and settings of a data set, or of those that it repeats or joins."""
    if not isinstance(dataset, Mapping) or "type" not in dataset:
        return
    kind = class_of(dataset["type"], [DATASETS], dataset.get("_scope_", scope))
    if getattr(kind, "__name__", "") not in _WRAPPERS:
        yield entry, kind, dataset
        return
    for number, each in enumerate(dataset.get("datasets") or [dataset.get("dataset")]):
        yield from _inside(each, f"{entry}.datasets.{number}" if "datasets" in dataset else f"{entry}.dataset", scope)


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

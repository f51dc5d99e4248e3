"""Prepared VOC images for mmsegmentation's pipelines, with random draws that a resumed run repeats."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import Dataset

from ean_core.common.errors import unknown_name
from ean_core.common.places import data_root
from ean_core.common.seeding import Stream, seeded
from ean_core.data.sampler import SampleKey
from ean_core.runs.outside import naming_missing_data

from .library import DATASETS as LIBRARY
from .library import SCOPE, PascalVOCDataset
from .loading import with_reader
from .prepare import read_manifest

#: How to say where the data of :class:`KeyedDataset` are.
_PLACE = "EAN_DATA=FOLDER, for relative paths"


def _placed(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a data set with a relative ``data_root`` looked up in ``EAN_DATA``."""
    root = dataset.get("data_root")
    return {**dataset, **({} if root is None else {"data_root": str(data_root() / root)})}


@DATASETS.register_module()
class KeyedDataset(Dataset):
    """An mmsegmentation data set with random draws that depend on the :class:`~ean_core.data.SampleKey` of an item.

    Args:
        dataset: config of the data set; a relative ``data_root`` is looked up in ``EAN_DATA``. Images are read as
            everywhere in this package, see :func:`~.loading.with_reader`.

    Raises:
        FileNotFoundError: if files of the data set are missing.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        settings = _placed(dataset)
        if settings.get("pipeline"):
            settings["pipeline"] = with_reader(settings["pipeline"])
        missing = naming_missing_data({"dataset": settings}, _PLACE)
        with DefaultScope.overwrite_default_scope(SCOPE), missing:
            self.dataset = LIBRARY.build(settings)

    @classmethod
    def check_files(cls, dataset: Mapping[str, Any]) -> None:
        """Raise as the constructor does if there is no folder ``data_root``."""
        settings = _placed(dataset)
        if settings.get("data_root") is not None and not Path(settings["data_root"]).exists():
            with naming_missing_data({"dataset": settings}, _PLACE):
                raise FileNotFoundError(settings["data_root"])

    @property
    def metainfo(self) -> Mapping[str, Any]:
        """Meta information of the data set: ``classes`` and ``palette``."""
        return self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey | int) -> Any:
        """Return an image as processed by the pipeline."""
        return keyed(self.dataset.__getitem__, key)


@DATASETS.register_module()
class PreparedVOC(PascalVOCDataset):
    """Images and masks checked by ``ean seg prepare``.

    Random draws depend on the key, as in :class:`KeyedDataset`.

    Args:
        split: image list of the prepared folder: ``train``, ``trainaug``, ``val``, ``fit`` or ``held_out``.
        root: the prepared folder; relative paths are looked up in ``EAN_DATA``.
        pipeline: mmsegmentation transforms; see :func:`~.loading.with_reader` on reading images.
        test_mode: whether items are for evaluation.

    Raises:
        FileNotFoundError: if the folder is not prepared.
        ValueError: if there is no such list.
    """

    def __init__(
        self,
        split: str,
        root: str | os.PathLike[str] = "segmentation/voc2012",
        *,
        pipeline: Sequence[Mapping[str, Any]] = (),
        test_mode: bool = False,
    ) -> None:
        self.folder = data_root() / Path(root).expanduser()
        manifest = _manifest(self.folder, split)
        entries = {entry["name"]: entry for entry in manifest["images"]}
        #: Manifest entries, in the order of the list.
        self.entries: list[Mapping[str, Any]] = [entries[name] for name in manifest["lists"][split]]
        #: Folder that the image names of entries are relative to.
        self.images = self.folder / manifest["root"]
        with DefaultScope.overwrite_default_scope(SCOPE):
            super().__init__(
                ann_file=str(self.folder / "lists" / f"{split}.txt"),
                data_prefix={"img_path": str(self.images), "seg_map_path": str(self.folder)},
                pipeline=with_reader(pipeline),
                test_mode=test_mode,
            )

    @classmethod
    def check_files(cls, split: str, root: str | os.PathLike[str] = "segmentation/voc2012", **options: Any) -> None:
        """Raise as the constructor does if the folder is not prepared, or has no such list."""
        _manifest(data_root() / Path(root).expanduser(), split)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return mmsegmentation's record of each image, from the manifest, ignoring later edits of the list files."""
        common = {"label_map": self.label_map, "reduce_zero_label": self.reduce_zero_label}
        return [
            {
                "img_path": str(self.images / entry["image"]),
                "seg_map_path": str(self.folder / entry["file"]),
                "seg_fields": [],
                **common,
            }
            for entry in self.entries
        ]

    def __getitem__(self, key: SampleKey | int) -> Any:
        """Return an image as processed by the pipeline."""
        return keyed(super().__getitem__, key)

    @cached_property
    def class_pixels(self) -> list[int]:
        """Number of pixels of each class, over all images."""
        return np.sum([entry["pixels"] for entry in self.entries], 0).tolist()


def _manifest(folder: Path, split: str) -> dict[str, Any]:
    """Read the manifest of a prepared folder, which has a list of this name."""
    manifest = read_manifest(folder)
    if split not in manifest["lists"]:
        hint = "; trainaug needs SBD" if split == "trainaug" else ""
        raise ValueError(f"{unknown_name(f'list of {folder}', split, manifest['lists'])}{hint}")
    return manifest


def keyed(get: Callable[[int], Any], key: SampleKey | int) -> Any:
    """Return an item; its random draws depend on the key alone, or are unseeded if it is indexed by a number."""
    if not isinstance(key, SampleKey):
        return get(key)
    with seeded(key.seed, Stream.AUGMENTATION, key.epoch, key.item):
        return get(key.item)

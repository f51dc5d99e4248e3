"""Prepared VOC images for mmsegmentation's pipelines, with draws that a resumed run repeats."""

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

from .library import DATASETS as LIBRARY
from .library import SCOPE, PascalVOCDataset
from .prepare import read_manifest


@DATASETS.register_module()
class KeyedDataset(Dataset):
    """A data set of mmsegmentation whose draws depend on the :class:`~ean_core.data.SampleKey` an item is asked for by.

    Args:
        dataset: its config; a relative ``data_root`` is looked up in ``EAN_DATA``.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        settings = dict(dataset)
        if settings.get("data_root") is not None:
            settings["data_root"] = str(data_root() / settings["data_root"])
        with DefaultScope.overwrite_default_scope(SCOPE):
            self.dataset = LIBRARY.build(settings)

    @property
    def metainfo(self) -> Mapping[str, Any]:
        """Of the data set: ``classes`` and ``palette``."""
        return self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey | int) -> Any:
        """What the pipeline makes of an image."""
        return keyed(self.dataset.__getitem__, key)


@DATASETS.register_module()
class PreparedVOC(PascalVOCDataset):
    """Images and masks that ``ean seg prepare`` has checked.

    Draws depend on the key, as those of :class:`KeyedDataset`.

    Args:
        split: a list of the prepared folder: ``train``, ``trainaug``, ``val``, ``fit`` or ``held_out``.
        root: the prepared folder; relative paths are looked up in ``EAN_DATA``.
        pipeline: of mmsegmentation's transforms.
        test_mode: whether items are for measuring.

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
        manifest = read_manifest(self.folder)
        if split not in manifest["lists"]:
            hint = "; trainaug needs SBD" if split == "trainaug" else ""
            raise ValueError(f"{unknown_name(f'list of {self.folder}', split, manifest['lists'])}{hint}")
        entries = {entry["name"]: entry for entry in manifest["images"]}
        #: Of the manifest, in the order of the list.
        self.entries: list[Mapping[str, Any]] = [entries[name] for name in manifest["lists"][split]]
        #: The folder that entries name their pictures relative to.
        self.images = self.folder / manifest["root"]
        with DefaultScope.overwrite_default_scope(SCOPE):
            super().__init__(
                ann_file=str(self.folder / "lists" / f"{split}.txt"),
                data_prefix={"img_path": str(self.images), "seg_map_path": str(self.folder)},
                pipeline=list(pipeline),
                test_mode=test_mode,
            )

    def load_data_list(self) -> list[dict[str, Any]]:
        """What mmsegmentation wants to know of each image, from the manifest: whatever a list's file says by now."""
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
        """What the pipeline makes of an image."""
        return keyed(super().__getitem__, key)

    @cached_property
    def class_pixels(self) -> list[int]:
        """How many pixels of all images are of each class."""
        return np.sum([entry["pixels"] for entry in self.entries], 0).tolist()


def keyed(get: Callable[[int], Any], key: SampleKey | int) -> Any:
    """An item with draws that depend on its key alone; those of an item asked for by its number are anyone's."""
    if not isinstance(key, SampleKey):
        return get(key)
    with seeded(key.seed, Stream.AUGMENTATION, key.epoch, key.item):
        return get(key.item)

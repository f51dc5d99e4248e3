"""ImageNet-style image folders, one folder per class."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DATASETS
from torch import Tensor
from torch.utils.data import Dataset

from ean_core.common.places import data_root

from .images import open_image
from .sampler import SampleKey
from .split import Split, check_split, split_indices


def shorter_side(size: int) -> int:
    """Length in pixels to which a test image's shorter side is resized before the crop of ``size`` pixels."""
    return round(size / 0.875)


@DATASETS.register_module()
class ImageTree(Dataset):
    """Images in ``ROOT/train/CLASS/*`` and ``ROOT/val/CLASS/*``, the common ImageNet layout.

    ``ROOT/val`` is the ``test`` split, as in the paper; ``val`` is held out from ``ROOT/train`` for the search. An item
    is ``dict(inputs=(3, size, size) uint8, labels=int)``, for ``collate_fn=dict(type='default_collate')``.

    Args:
        split: ``trainval``, ``train``, ``val`` or ``test``.
        root: the folder; relative paths are resolved against ``EAN_DATA``.
        val_per_class: images per class in ``val``.
        size: height and width of an item, in pixels.
        augment: apply a random resized crop and flip (Inception style); otherwise the center crop after resizing the
            shorter side to ``size / 0.875``.

    Raises:
        FileNotFoundError: if a folder is missing or holds no images.
        ValueError: if the two folders do not have the same classes, there is only one class, or a class has too few
            images to hold some out.
    """

    def __init__(
        self,
        split: Split,
        root: str | os.PathLike[str] = "imagenet",
        val_per_class: int = 100,
        size: int = 224,
        augment: bool = False,
    ) -> None:
        from torchvision.datasets import ImageFolder  # torchvision takes a third of the time of importing this package
        from torchvision.transforms import v2

        check_split(split)
        folder = _folder_of(split, root)
        try:
            files = ImageFolder(os.fspath(folder))
        except FileNotFoundError as error:
            raise _no_images(folder, split, error) from error
        if split != "test" and len(files.classes) < 2:
            raise ValueError(f"{folder} has only one class, {files.classes[0]!r}; classification needs at least two")
        if split == "test" and (folder.parent / "train").is_dir():
            trained, _ = files.find_classes(folder.parent / "train")
            different = sorted({*trained} ^ {*files.classes})
            if different:  # labels are folder indices, so a missing folder would shift those after it
                raise ValueError(f"{folder} and {folder.parent / 'train'} have different classes: {different[:8]}")
        self.samples: list[tuple[str, int]] = files.samples
        if split != "test":
            chosen = split_indices([label for _, label in files.samples], split, val_per_class)
            self.samples = [files.samples[index] for index in chosen]
        self.labels = [label for _, label in self.samples]
        self.metainfo = {"classes": files.classes}
        self.size = size
        crop: list[Any]
        if augment:
            crop = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
        else:
            crop = [v2.Resize(shorter_side(size)), v2.CenterCrop(size)]
        self.transform = v2.Compose([*crop, v2.PILToTensor()])
        self._folder = folder
        self._treatment = f"size {size}, augment {augment}"

    @classmethod
    def check_files(cls, split: Split, root: str | os.PathLike[str] = "imagenet", **options: Any) -> None:
        """Raise as the constructor does if there is no folder of a class, without listing the images."""
        folder = _folder_of(split, root)
        if not folder.is_dir() or not any(path.is_dir() for path in folder.iterdir()):
            raise _no_images(folder, split, "no folder of a class")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the names and sizes of the files, and of the transforms applied to them."""
        listing = [f"{os.path.relpath(path, self._folder)} {Path(path).stat().st_size}" for path, _ in self.samples]
        return hashlib.sha256("\n".join([*listing, self._treatment]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Tensor | int]:
        """One image, read by :func:`~ean_core.data.images.open_image`; its augmentation depends only on the key, not on
        the process that loads it."""
        index = key.item if isinstance(key, SampleKey) else key
        path, label = self.samples[index]
        image = open_image(path)
        if not isinstance(key, SampleKey):
            return {"inputs": self.transform(image), "labels": label}
        # torchvision's transforms draw from the global generator: seed it for this image, then restore it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key.generator().initial_seed())
            return {"inputs": self.transform(image), "labels": label}


def _folder_of(split: Split, root: str | os.PathLike[str]) -> Path:
    return data_root() / Path(root).expanduser() / ("val" if split == "test" else "train")


def _no_images(folder: Path, split: Split, reason: object) -> FileNotFoundError:
    return FileNotFoundError(
        f"no images for split {split!r} in {folder} ({reason}); expected one folder per class under "
        f"{folder.parent / 'train'} and {folder.parent / 'val'}: unpack ImageNet there, or set EAN_DATA to the folder "
        f"that holds {folder.parent.name}"
    )

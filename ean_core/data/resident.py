"""Small data sets kept on the device as uint8 and augmented one batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.registry import DATASETS
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ean_core.common.memory import copy_over
from ean_core.common.places import data_root, offline

from .sampler import SampleKey
from .split import Split, check_split, split_indices


class ResidentDataset(Dataset):
    """Images in the memory of the training device, fetched and augmented in batches.

    A batch is ``dict(inputs=(N, C, H, W) uint8 in channels-last order, labels=(N,) int64)``. Use it in a
    ``DataLoader`` with :class:`EpochSampler`, ``num_workers=0`` and ``collate_fn=dict(type='as_batch')``: gathering a
    batch is one indexing operation, which worker processes would not speed up.

    Args:
        images: uint8 ``(N, H, W, C)``.
        labels: ``(N,)``.
        classes: names of the classes.
        pad: width of the zero padding in pixels, from which a random crop of the original size is taken; 0 for none.
        flip: mirror each image horizontally with probability 1/2.
        device: where to keep the images; the training device if None.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: Sequence[int],
        classes: Sequence[str],
        *,
        pad: int = 0,
        flip: bool = False,
        device: str | None = None,
    ) -> None:
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        device = device or get_device()
        self.labels = torch.as_tensor(labels, dtype=torch.int64, device=device)
        self.height, self.width = images.shape[1:3]
        self.pad = pad
        self.flip = flip
        self.metainfo = {"classes": list(classes)}
        around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        self._padded = torch.from_numpy(np.pad(images, around)).to(device)  # (N, H + 2 pad, W + 2 pad, C)
        digest = hashlib.sha256(np.ascontiguousarray(images).tobytes())
        digest.update(np.asarray(labels, dtype=np.int64).tobytes())
        #: SHA-256 of images and labels.
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Tensor]:
        """One image: augmented if ``key`` is a :class:`SampleKey`, unchanged if it is an index."""
        if isinstance(key, SampleKey):
            return {name: value[0] for name, value in self.__getitems__([key]).items()}
        if not -len(self) <= key < len(self):
            raise IndexError(f"image {key} of {len(self)}")
        inner = self._padded[key, self.pad : self.pad + self.height, self.pad : self.pad + self.width]
        return {"inputs": inner.permute(2, 0, 1), "labels": self.labels[key]}

    def __getitems__(self, keys: Sequence[SampleKey]) -> dict[str, Tensor]:
        """A batch; its augmentation is drawn from the first key's generator.

        Raises:
            TypeError: for plain indices, which carry no seed and epoch.
        """
        if not isinstance(keys[0], SampleKey):
            raise TypeError(
                f"{type(self).__name__} builds batches from SampleKeys, got {type(keys[0]).__name__}; give the loader "
                "sampler=dict(type='EpochSampler')"
            )
        device = self._padded.device
        index = torch.empty(len(keys), dtype=torch.int64, device=device)
        copy_over(torch.tensor([key.item for key in keys]), index)
        n = len(keys)
        draw = keys[0].generator(device)

        def offsets() -> Tensor:
            if not self.pad:
                return torch.zeros(n, 1, dtype=torch.int64, device=device)
            return torch.randint(2 * self.pad + 1, (n, 1), generator=draw, device=device)

        rows = offsets() + torch.arange(self.height, device=device)  # (N, H)
        columns = torch.arange(self.width, device=device).expand(n, -1)  # (N, W)
        if self.flip:
            mirrored = torch.rand(n, 1, generator=draw, device=device) < 0.5
            columns = torch.where(mirrored, self.width - 1 - columns, columns)
        columns = columns + offsets()
        # A single lookup of whole pixels is three times as fast as indexing image, row and column.
        tall, wide = self._padded.shape[1:3]
        pixels = (index[:, None, None] * tall + rows[:, :, None]) * wide + columns[:, None, :]  # (N, H, W)
        images = self._padded.flatten(0, 2).index_select(0, pixels.flatten()).view(*pixels.shape, -1)
        return {"inputs": images.permute(0, 3, 1, 2), "labels": self.labels[index]}


@DATASETS.register_module()
class CIFAR100(ResidentDataset):
    """CIFAR-100 ("Learning Multiple Layers of Features from Tiny Images", Krizhevsky, 2009): 32x32, 100 classes.

    Reads torchvision's files from the folder ``EAN_DATA``. If they are missing, torchvision downloads them unless
    ``EAN_OFFLINE`` is set.

    Args:
        split: ``trainval`` (50,000 images), ``train`` and ``val`` (40,000 and 10,000 of them), ``test`` (10,000).
        val_per_class: images per class in ``val``.
        pad, flip, device: see :class:`ResidentDataset`; the usual augmentation is ``pad=4, flip=True``.

    Raises:
        FileNotFoundError: if the files are missing and cannot be downloaded.
    """

    def __init__(self, split: Split, val_per_class: int = 100, **options: Any) -> None:
        check_split(split)
        data = _torchvision_cifar100(train=split != "test")
        images, labels = data.data, np.asarray(data.targets)
        if split != "test":
            chosen = split_indices(labels.tolist(), split, val_per_class)
            images, labels = images[chosen], labels[chosen]
        super().__init__(images, labels.tolist(), data.classes, **options)

    @classmethod
    def check_files(cls, **options: Any) -> None:
        """Download the files if there are none; raises as the constructor does."""
        if not all((data_root() / "cifar-100-python" / name).is_file() for name in ("meta", "test", "train")):
            _torchvision_cifar100(train=False)


def _torchvision_cifar100(train: bool) -> Any:
    from torchvision import datasets

    root = data_root()
    try:
        return datasets.CIFAR100(root, train=train)
    except RuntimeError:
        pass  # missing or damaged
    hint = f"CIFAR-100 is missing or incomplete in {root / 'cifar-100-python'}"
    place = f"set EAN_DATA to the folder that holds cifar-100-python, or unpack {datasets.CIFAR100.url} in {root}"
    if offline():
        raise FileNotFoundError(f"{hint} and EAN_OFFLINE forbids downloading it; {place}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        return datasets.CIFAR100(root, train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(f"{hint} and could not be downloaded ({error}); {place}") from error


@DATASETS.register_module()
class Digits(ResidentDataset):
    """scikit-learn's handwritten digits: 1,797 real 8x8 grayscale images that ship with the library; no download.

    Args:
        split: ``test`` is the last 40 images of each class, ``trainval`` the others. ``val`` is the first
            ``val_per_class`` images of each class in ``trainval``, ``train`` the rest.
        val_per_class: images per class in ``val``.
        pad, flip, device: see :class:`ResidentDataset`; ``pad=1`` suits these images, flipping does not.
    """

    TEST_PER_CLASS = 40

    def __init__(self, split: Split, val_per_class: int = 40, **options: Any) -> None:
        from sklearn.datasets import load_digits

        check_split(split)
        data = load_digits()
        images = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None]  # (N, 8, 8, 1), 0..16 -> 0..255
        labels = data.target.tolist()
        # The last images of a class come first in reversed order.
        backwards = split_indices(labels[::-1], "val", self.TEST_PER_CLASS)
        test = sorted(len(labels) - 1 - index for index in backwards)
        kept = set(test)
        rest = [index for index in range(len(labels)) if index not in kept]
        if split == "test":
            chosen = test
        else:
            chosen = [rest[i] for i in split_indices([labels[index] for index in rest], split, val_per_class)]
        super().__init__(images[chosen], [labels[i] for i in chosen], [str(i) for i in range(10)], **options)

"""The paper's data split: a fixed number of training images per class is held out for validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from ean_core.common.errors import unknown_name

#: ``trainval``: all training images; ``val``: those held out for the search; ``train``: the others; ``test``: the
#: official test images.
Split = Literal["trainval", "train", "val", "test"]
SPLITS: tuple[Split, ...] = ("trainval", "train", "val", "test")


def check_split(split: str) -> None:
    """Raise ValueError for a split that does not exist."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)


def split_indices(labels: Sequence[int], split: Split, val_per_class: int) -> list[int]:
    """Indices of the training images that belong to ``split``, in one pass over the labels.

    The first ``val_per_class`` images of each class are the validation set (Section 5.1: 100 of CIFAR-100 and of
    ImageNet; the first ones in the authors' code).

    Raises:
        ValueError: if a class would have no training images left, or ``split`` is not part of the training images.

    Examples:
        >>> split_indices([0, 1, 0, 0, 1, 1], 'val', val_per_class=1)
        [0, 1]
        >>> split_indices([0, 1, 0, 0, 1, 1], 'train', val_per_class=1)
        [2, 3, 4, 5]
    """
    if split not in ("trainval", "train", "val"):
        raise unknown_name("part of the training images", split, ("trainval", "train", "val"))
    if split == "trainval":
        return list(range(len(labels)))
    if val_per_class < 1:
        raise ValueError(f"val_per_class must be at least 1, got {val_per_class}")
    seen: Counter[int] = Counter()
    train: list[int] = []
    val: list[int] = []
    for index, label in enumerate(labels):
        (val if seen[label] < val_per_class else train).append(index)
        seen[label] += 1
    short = [label for label, count in seen.items() if count <= val_per_class]
    if short:
        raise ValueError(
            f"class {short[0]} has {seen[short[0]]} images, too few to hold out val_per_class={val_per_class} "
            "and train on the rest; lower val_per_class"
        )
    return train if split == "train" else val

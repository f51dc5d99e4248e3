"""Data sets, their splits, and the sampling order."""

from typing import TYPE_CHECKING

from ean_core.common.lazy import contents

if TYPE_CHECKING:
    from ean_core.common.places import data_root

    from .folder import ImageTree
    from .resident import CIFAR100, Digits, ResidentDataset
    from .sampler import EpochSampler, SampleKey, as_batch
    from .split import SPLITS, Split, split_indices

__all__ = [
    "CIFAR100",
    "SPLITS",
    "Digits",
    "EpochSampler",
    "ImageTree",
    "ResidentDataset",
    "SampleKey",
    "Split",
    "as_batch",
    "data_root",
    "split_indices",
]

__getattr__, __dir__ = contents(
    __name__,
    {
        "data_root": "ean_core.common.places",
        "ImageTree": ".folder",
        "CIFAR100": ".resident",
        "Digits": ".resident",
        "ResidentDataset": ".resident",
        "EpochSampler": ".sampler",
        "SampleKey": ".sampler",
        "as_batch": ".sampler",
        "SPLITS": ".split",
        "Split": ".split",
        "split_indices": ".split",
    },
)

"""Data sets, their splits, and the sampling order."""

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

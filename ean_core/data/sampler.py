"""Sampling order of a training run, determined by seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS, FUNCTIONS
from torch.utils.data import Sampler

from ean_core.common.seeding import Stream, generator


class SampleKey(NamedTuple):
    """Index of an image, with the seed and epoch that determine its augmentation."""

    seed: int
    epoch: int
    item: int

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Random generator for augmenting this image in this epoch."""
        return generator(self.seed, Stream.AUGMENTATION, self.epoch, self.item, device=device)


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler[SampleKey]):
    """Yields one :class:`SampleKey` per image, divided among the ranks, in a new order each epoch.

    If the images do not divide evenly among the ranks, some are repeated at the end of the epoch; mmengine's metrics
    drop the repetitions.

    Args:
        dataset: anything with a length.
        shuffle: use a new order each epoch instead of the data set's own.
        seed: seed of order and augmentation; synchronized across ranks if None.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        if self.size == 0:
            raise ValueError(f"{type(dataset).__name__} has no images")
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; called by mmengine's DistSamplerSeedHook."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.size // self.world_size)

    def __iter__(self) -> Iterator[SampleKey]:
        if self.shuffle:
            order = torch.randperm(self.size, generator=generator(self.seed, Stream.ORDER, self.epoch)).tolist()
        else:
            order = list(range(self.size))
        for position in range(self.rank, len(self) * self.world_size, self.world_size):
            yield SampleKey(self.seed, self.epoch, order[position % self.size])


@FUNCTIONS.register_module()
def as_batch(batch: Any) -> Any:
    """Collate function of data sets that return whole batches."""
    return batch

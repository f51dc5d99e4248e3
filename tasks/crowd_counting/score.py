"""Score schemes of a counter by its mean absolute error, for ``ean search``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ean_core.search.scorer import MeanScorer, Rows

from .metrics import count_errors
from .network import CrowdCounter
from .prepared_file import read_prepared


class CounterScorer(MeanScorer):
    """Scores counters by MAE; a row is an image's count and its number of people.

    Large images are cut into tiles by the counter itself. Only the density map of a tile is kept.
    """

    network: CrowdCounter

    def fingerprint(self, dataset: Any, settings: Mapping[str, Any]) -> str:
        """Hash the images and points of a :class:`~tasks.crowd_counting.dataset.CrowdDataset`."""
        digest = hashlib.sha256()
        for entry in dataset.entries:
            points, _ = read_prepared(dataset.folder / entry["file"])
            digest.update(f"{entry['name']} {entry['height']} {entry['width']} {len(points)}".encode())
            digest.update((dataset.pictures / entry["image"]).read_bytes())
            digest.update(np.ascontiguousarray(points).tobytes())
        return digest.hexdigest()

    @property
    def first(self) -> nn.Module:
        return self.network.density

    def early(self, maps: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (self.network.density(maps[-1]),)

    def rows(self, data: Mapping[str, Any]) -> Tensor:
        predicted = self.network(**data, mode="predict")
        return torch.tensor([[each["count"], each["points"]] for each in predicted], dtype=torch.float64)

    def per_image(self, rows: Rows) -> NDArray[np.float64]:
        return np.abs(rows[:, 0] - rows[:, 1])

    def value(self, rows: Rows) -> float:
        return count_errors(rows[:, 0].tolist(), rows[:, 1].tolist())["MAE"]

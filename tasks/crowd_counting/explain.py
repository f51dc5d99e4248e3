"""Explain counts: Grad-CAM of the sum of the density map."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tasks.explainers import Explainer, within_memory


class CounterExplainer(Explainer):
    """Explains the sum of the density map, which is also its score."""

    unit = "people"

    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.uint8]]:
        seen = within_memory(pixels)
        image = torch.from_numpy(seen).permute(2, 0, 1)[None]
        inputs = self.network.data_preprocessor({"inputs": image})["inputs"]
        height, width = seen.shape[:2]
        stride = self.network.stride  # padded as the network would, to align the heat map with the image
        return F.pad(inputs, (0, -width % stride, 0, -height % stride)), seen

    def scores(self, inputs: Tensor) -> list[float]:
        with torch.inference_mode():
            return [self.target(inputs, 0).item()]

    def target(self, inputs: Tensor, index: int) -> Tensor:
        density: Tensor = self.network(inputs, mode="tensor")
        return density.sum((1, 2, 3))

    def text(self, score: float, target: str) -> str:
        return f"{score:.1f} people"

"""Explain segmentations: Grad-CAM of a class's logit where that class is predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tasks.explainers import Explainer, within_memory

from .library import SegDataSample
from .network import Segmentor, tested_size
from .voc import CLASSES


class SegmentorExplainer(Explainer):
    """Explains the mean logit of a class where that class is predicted; scores are shares of the image."""

    unit = "share of the image"
    background = CLASSES[0]

    def __init__(self, name: str, network: Segmentor, classes: Sequence[str]) -> None:
        known = [classes, CLASSES, [str(label) for label in range(network.num_classes)]]
        super().__init__(name, network, next(names for names in known if len(names) == network.num_classes))

    def prepare(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.uint8]]:
        seen = within_memory(pixels)
        height, width = tested_size(seen.shape[:2], self.network.test_cfg.get("shorter_side"))
        if (height, width) != seen.shape[:2]:
            seen = np.array(Image.fromarray(seen).resize((width, height), Image.Resampling.BILINEAR))
        image = torch.from_numpy(np.ascontiguousarray(seen[:, :, ::-1])).permute(2, 0, 1)  # BGR
        sample = SegDataSample(metainfo={"ori_shape": seen.shape[:2], "img_shape": seen.shape[:2]})
        data = self.network.data_preprocessor({"inputs": [image], "data_samples": [sample]}, False)
        return data["inputs"], seen

    def scores(self, inputs: Tensor) -> list[float]:
        with torch.inference_mode():
            labels = self.network(inputs, mode="tensor")[0].argmax(0)  # (h, w)
        counts = torch.bincount(labels.flatten(), minlength=len(self.classes))
        shares: list[float] = (counts / labels.numel()).tolist()
        return shares

    def target(self, inputs: Tensor, index: int) -> Tensor:
        logits: Tensor = self.network(inputs, mode="tensor")  # (1, classes, h, w)
        seen = (logits.argmax(1) == index).float()
        if not seen.any():
            seen = torch.ones_like(seen)
        return (logits[:, index] * seen).sum((1, 2)) / seen.sum((1, 2))

    def text(self, score: float, target: str) -> str:
        return f"{target}: {100 * score:.1f} %"

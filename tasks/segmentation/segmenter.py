"""A trained segmentor in Python: ``Segmenter.load('work_dirs/resnet20_se_voc2012')(picture)``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import zoo
from ean_core.data.images import AnyImage, pixels_of
from ean_core.runs.folder import trained_config
from ean_core.weights.files import read_meta
from tasks.trained import Trained

from .export import SegmentorScores
from .library import SegDataSample
from .network import Segmentor
from .task import TASK
from .voc import CLASSES, colours

#: Images with more pixels are downscaled before prediction, and their labels upscaled again.
MOST_PIXELS = 4_000_000

Own = TypeVar("Own", bound="Segmenter")


class Segmentation(NamedTuple):
    """Labels of an image.

    Args:
        labels: label of each pixel, uint8 ``(H, W)``; indices into ``classes``.
        classes: class names.
    """

    labels: NDArray[np.uint8]
    classes: Sequence[str]

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the image covered by each class present, largest first."""
        found = np.bincount(self.labels.ravel(), minlength=len(self.classes)) / self.labels.size
        return {self.classes[label]: float(found[label]) for label in np.argsort(-found, kind="stable") if found[label]}


class Segmenter(Trained[Segmentor]):
    """Labels each pixel of an image, with the deployed form of a network.

    Args:
        network: the network, in any mode; it is copied.
        name: name of the network, for reports.
        device: device to run on; by default a GPU if there is one.

    Raises:
        ValueError: if PyTorch cannot use the device.
    """

    task = TASK
    maps = SegmentorScores

    def __init__(self, network: Segmentor, name: str | None = None, *, device: str | None = None) -> None:
        super().__init__(network, name, device=device)
        self.set_classes()

    def set_classes(self, classes: Sequence[str] | None = None, palette: Sequence[Sequence[int]] | None = None) -> None:
        """Set the names and colors of the labels.

        Args:
            classes: names; if None, VOC's for 21 labels, otherwise numbers.
            palette: colors ``(labels, 3)``; VOC's if None.

        Raises:
            ValueError: if their number differs from that of the labels.
        """
        number = self.network.num_classes
        self.classes = tuple(classes or (CLASSES if number == len(CLASSES) else map(str, range(number))))
        self.palette = np.array(colours()[:number] if palette is None else palette, np.uint8)
        for what, given in (("names", self.classes), ("colors", self.palette)):
            if len(given) != number:
                raise ValueError(f"{self.name} has {number} labels, got {len(given)} {what}")

    @classmethod
    def from_zoo(cls: type[Own], name: str, *, device: str | None = None) -> Own:
        made = super().from_zoo(name, device=device)
        made.set_classes(zoo.get_weights(name).meta.get("categories"))
        return made

    @classmethod
    def from_checkpoint(cls: type[Own], path: str | os.PathLike[str], *, device: str | None = None) -> Own:
        made = super().from_checkpoint(path, device=device)
        config = trained_config(Path(path))
        if config is not None and made.network.test_cfg.get("shorter_side") is None:
            made.network.test_cfg["shorter_side"] = _tested_side(config)
        described: Any = read_meta(Path(path)).get("dataset_meta")
        if isinstance(described, Mapping):
            made.set_classes(described.get("classes"), described.get("palette"))
        return made

    @torch.inference_mode()
    def __call__(self, picture: AnyImage) -> Segmentation:
        """Label the pixels of an image of any size.

        Images of more than four million pixels are downscaled for prediction; their labels have the original size.

        Args:
            picture: a file, a PIL image, or a uint8 array, RGB ``(H, W, 3)`` or gray ``(H, W)``.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read as an image.
            MemoryError: if the machine or the GPU runs out of memory.
        """
        pixels = pixels_of(picture)
        height, width = pixels.shape[:2]
        factor = math.sqrt(MOST_PIXELS / (height * width))
        seen = pixels
        if factor < 1:
            size = max(1, round(width * factor)), max(1, round(height * factor))
            seen = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        try:
            labels = self._labels(seen)
        except RuntimeError as error:  # PyTorch's out-of-memory errors
            if "memory" not in str(error).lower():
                raise
            raise MemoryError(f"not enough memory for {width} x {height} pixels") from error
        if factor < 1:
            labels = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
        return Segmentation(labels, self.classes)

    def _labels(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        preprocess: Any = self.network.data_preprocessor
        # BGR, as mmsegmentation reads files: networks that expect RGB swap the channels.
        image = torch.from_numpy(np.ascontiguousarray(pixels[:, :, ::-1])).permute(2, 0, 1)
        sample = SegDataSample(metainfo={"ori_shape": pixels.shape[:2], "img_shape": pixels.shape[:2]})
        device = next(self.network.parameters()).device
        data = preprocess({"inputs": [image.to(device)], "data_samples": [sample]}, False)
        (found,) = self.network.predict(data["inputs"], data["data_samples"])
        return found.pred_sem_seg.data[0].to(torch.uint8).cpu().numpy()


def _tested_side(config: Mapping[str, Any]) -> int | None:
    """Shorter side in pixels to which a config's test pipeline resizes images by mmsegmentation's usual
    ``Resize(scale=(4 * side, side), keep_ratio=True)``; None for other pipelines."""
    dataset = (config.get("test_dataloader") or {}).get("dataset") or {}
    for step in (dataset.get("dataset") or dataset).get("pipeline") or ():
        scale = step.get("scale")
        if step.get("type") == "Resize" and step.get("keep_ratio") and isinstance(scale, (list, tuple)):
            return min(scale) if max(scale) == 4 * min(scale) else None
    return None

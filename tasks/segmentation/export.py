"""Segmentors in files that run without this package, for ``ean export``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from ean_core.inference.export import FromPixels


class SegmentorFromPixels(FromPixels):
    """A segmentor that includes image normalization, for images of one size: heads that pool a fixed number of bins
    cannot be expressed for others in ONNX.

    Maps RGB images ``(N, 3, H, W)``, floats from 0 to 255, to class scores ``(N, num_classes, H, W)``, without
    ``test_cfg.shorter_side``, by which images are to be resized before.

    Raises:
        ValueError: if the network has another kind of preprocessor than mmsegmentation's.
    """

    output: ClassVar[str] = "scores"
    axes: ClassVar[Mapping[int, str]] = {0: "batch"}
    any_size: ClassVar[bool] = False
    model: Any

    @staticmethod
    def preprocessor_of(model: Any) -> Any:
        preprocessor = model.data_preprocessor
        if type(preprocessor).__name__ != "SegDataPreProcessor":
            raise ValueError(
                f"data_preprocessor is {type(preprocessor).__name__}, which cannot be exported; use SegDataPreProcessor"
            )
        return preprocessor

    def normalized(self, images: Tensor) -> Tensor:
        if not self.preprocessor.channel_conversion:  # it takes images as mmsegmentation reads them: BGR
            images = images.flip(1)
        if self.preprocessor._enable_normalize:
            images = (images - self.preprocessor.mean) / self.preprocessor.std
        return images

    def outputs(self, images: Tensor) -> Tensor:
        return F.interpolate(
            self.model(images), images.shape[2:], mode="bilinear", align_corners=self.model.align_corners
        )

    def expected(self, images: Tensor) -> Tensor:
        metas = [{"img_shape": tuple(images.shape[2:])}] * len(images)
        return self.model.encode_decode(self.normalized(images), metas)

    def meaning(self) -> str:
        side = self.model.test_cfg.get("shorter_side")
        hint = f"; resize images to a shorter side of {side} pixels first, as in training" if side else ""
        return f"class scores (N, {self.model.num_classes}, H, W), the label of a pixel is the largest{hint}"


class SegmentorScores(SegmentorFromPixels):
    """A segmentor without normalization: maps normalized images of one size to class scores of the same size."""

    @staticmethod
    def preprocessor_of(model: Any) -> None:
        return None

    def normalized(self, images: Tensor) -> Tensor:
        return images

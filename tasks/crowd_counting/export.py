"""Counters in files that run without this package, for ``ean export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ean_core.backbone import find_backbone
from ean_core.inference.export import FromPixels


class CounterFromPixels(FromPixels):
    """A counter that includes image normalization.

    Maps images ``(N, 3, H, W)``, floats from 0 to 255, to people per cell, ``(N, 1, ceil(H / stride), ceil(W /
    stride))``. Images are never cut into tiles.
    """

    output: ClassVar[str] = "density"
    axes: ClassVar[Mapping[int, str]] = {0: "batch", 2: "rows", 3: "columns"}
    model: Any

    @classmethod
    def suited(cls, model: nn.Module) -> type[FromPixels]:
        windowed = any(module.window is not None for module in find_backbone(model).attentions().values())
        return OneSizeCounterFromPixels if windowed else cls

    @classmethod
    def size_of(cls, model: nn.Module, image_size: int | Sequence[int] | None) -> tuple[int, int]:
        """A small size, since any will do."""
        return 128, 192

    def outputs(self, images: Tensor) -> Any:
        # The same as the network's own padding to whole cells, without a condition on the size: more than needed, so
        # that there is always something to cut off.
        stride = self.model.stride
        height, width = ((side + stride - 1) // stride * stride for side in images.shape[2:])
        padded = F.pad(images, (0, stride, 0, stride))[:, :, :height, :width]
        return self.model.head(self.model.backbone(padded)[-1])

    def meaning(self) -> str:
        s = self.model.stride
        return (
            f"density, people per cell of {s} x {s} pixels (N, 1, ceil(H / {s}), ceil(W / {s})); its sum is the count"
        )


class OneSizeCounterFromPixels(CounterFromPixels):
    """A counter whose attention has windows, for images of the size in its config: their number depends on it."""

    axes: ClassVar[Mapping[int, str]] = {0: "batch"}
    any_size: ClassVar[bool] = False

    @classmethod
    def size_of(cls, model: nn.Module, image_size: int | Sequence[int] | None) -> tuple[int, int]:
        """Height and width in the config."""
        return super(CounterFromPixels, cls).size_of(model, image_size)


class CounterMaps(CounterFromPixels):
    """A counter without normalization and padding: maps normalized images of whole cells to density and features.

    Features are the last feature map, by which a counter recognizes unfamiliar images.
    """

    others: ClassVar[tuple[str, ...]] = ("features",)

    @classmethod
    def suited(cls, model: nn.Module) -> type[FromPixels]:
        return OneSizeCounterMaps if CounterFromPixels.suited(model) is OneSizeCounterFromPixels else cls

    @staticmethod
    def preprocessor_of(model: Any) -> None:
        return None

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.backbone(images)[-1]
        return self.model.head(features), features

    def expected(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.outputs(images)


class OneSizeCounterMaps(CounterMaps):
    """:class:`CounterMaps` of a counter whose attention has windows."""

    axes: ClassVar[Mapping[int, str]] = {0: "batch"}
    any_size: ClassVar[bool] = False

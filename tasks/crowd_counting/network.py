"""A counter: an EAN backbone truncated after a stage, and a small head that maps its last feature map to a density."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ean_core.backbone import EANResNet
from ean_core.classifier import last_map_of
from ean_core.common.errors import unknown_name
from ean_core.common.inputs import check_images
from ean_core.hub import HubNetwork
from ean_core.show.table import size_text
from ean_core.weights.loading import PretrainedOrRaise

from .familiar import Familiar
from .losses import CountingLoss

#: Side of the tiles that large images are cut into, and the overlap of tiles with their neighbors, in pixels.
TILE, MARGIN = 2048, 128
#: The head's raw output is people per this many cells.
CELLS = 100.0


class LiftedReLU(nn.ReLU):
    """ReLU of maps of any shape whose gradient in training also passes where it raises a negative input, so that a map
    that is zero everywhere can recover. It is not the gradient of the loss, but has its sign. The Bayesian loss, whose
    background pushes most cells down, ends there otherwise."""

    def forward(self, input: Tensor) -> Tensor:
        rectified = super().forward(input)
        if not (self.training and input.requires_grad):
            return rectified
        below = input - input.detach()  # zero, with the gradient of the input
        below.register_hook(lambda gradient: gradient.clamp(max=0) * (input <= 0))
        return rectified + below


@MODELS.register_module()
class CrowdCounter(HubNetwork, PretrainedOrRaise, BaseModel):
    """Maps images ``(N, 3, H, W)`` to people per cell, ``(N, 1, ceil(H / stride), ceil(W / stride))``, non-negative.

    The head is 1x1 convolution, ReLU, 1x1 convolution, ReLU on the backbone's last feature map; the last ReLU is
    :class:`LiftedReLU`. Its raw output is
    people per hundred cells, a number near one in a street scene, a scale that suits training. ResNet-50 with
    ``num_stages=3, strides=(1, 2, 1)`` is the network that Table 3 of the paper likely reports; it takes the leading
    stages of a scheme.

    Args:
        backbone: an EAN backbone, or the config of one.
        head_channels: channels between the two convolutions of the head.
        loss: config of a loss of :mod:`~tasks.crowd_counting.losses`; density L2 by default.
        data_preprocessor: config of the module that normalizes the images.
        channels_last: keep weights and images in channels-last order, which is faster on most machines.
        init_cfg: as in OpenMMLab.

    ``compute``, if it is set, maps normalized images of whole cells to the density and the last feature map, in place
    of backbone and head.

    When trained on a batch with a single image, the backbone's batch norms use their running statistics for that
    batch, because the statistics of one image say little about others. ``backbone.norm_eval`` makes them always do so.

    Examples:
        >>> counter = CrowdCounter(dict(type='EANResNetCIFAR', depth=20, scheme='none', stem_stride=2))
        >>> counter.stride, tuple(counter(torch.zeros(1, 3, 60, 100)).shape)
        (8, (1, 1, 8, 13))
    """

    compute: Callable[[Tensor], Sequence[Tensor]] | None = None

    def __init__(
        self,
        backbone: EANResNet | Mapping[str, Any],
        head_channels: int = 128,
        loss: Mapping[str, Any] | None = None,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        *,
        channels_last: bool = True,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone: EANResNet = backbone if isinstance(backbone, nn.Module) else last_map_of(backbone)
        self.stride: int = self.backbone.out_strides[-1]
        first = nn.Conv2d(self.backbone.out_channels[-1], head_channels, 1)
        last = nn.Conv2d(head_channels, 1, 1)
        self.density = nn.Sequential(first, nn.ReLU(inplace=True), last, LiftedReLU())
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        nn.init.zeros_(first.bias)  # type: ignore[arg-type]
        # Start above zero everywhere: near one, what a street scene has.
        nn.init.normal_(last.weight, std=0.01)
        nn.init.ones_(last.bias)  # type: ignore[arg-type]
        self.loss: CountingLoss = MODELS.build(dict(loss or {"type": "DensityL2"}))
        self.familiar = Familiar(self.backbone.out_channels[-1])
        self.data_preprocessor: BaseDataPreprocessor
        self.channels_last = channels_last
        self._settled: list[nn.Module] = []
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def head(self, features: Tensor) -> Tensor:
        """People per cell ``(N, 1, h, w)`` from the last feature map ``(N, C, h, w)``."""
        return self.density(features) / CELLS

    def forward(
        self,
        inputs: Tensor,
        points: Sequence[Tensor] | None = None,
        density: Tensor | None = None,
        name: Sequence[str] | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Any]]:
        """Count in normalized images.

        Args:
            inputs: float images ``(N, 3, H, W)`` of any size; padded with zeros, the mean color, to a multiple of the
                stride.
            points: heads of each image ``(n, 2)``; not needed in mode ``tensor``.
            density: people per pixel, ``(N, 1, H, W)``, for mode ``loss``; summed here over this network's cells.
            name: names of the images, for mode ``predict``.
            mode: ``tensor`` returns the map, ``loss`` the loss terms, ``predict`` one dict per image with ``name``,
                ``count``, and ``points``, the number of points. ``predict`` cuts large images into tiles.
        """
        if mode == "tensor":
            return self._map(inputs)
        if mode not in ("loss", "predict"):
            raise unknown_name("mode", mode, ("tensor", "loss", "predict"))
        if points is None or (density is None and mode == "loss"):
            raise ValueError(f"mode={mode!r} needs points" + " and density" * (mode == "loss"))
        if mode == "loss" and density is not None:
            if density.shape[2:] != inputs.shape[2:]:
                raise ValueError(
                    f"density (people per pixel) must have the size of the images, {size_text(inputs.shape[2:])}, got "
                    f"{size_text(density.shape[2:])}"
                )
            if self.training:
                self.familiar.forget()
            self._settle_norms(len(inputs))
            predicted = self._map(inputs)
            with torch.autocast(inputs.device.type, enabled=False):
                return self.loss(predicted, sum_cells(density, self.stride), points, self.stride)
        counts = [self.count_map(image[None]).double().sum().item() for image in inputs]
        names = name or [""] * len(counts)
        return [
            {"name": label, "count": count, "points": len(heads)}
            for label, count, heads in zip(names, counts, points, strict=True)
        ]

    def count_map(
        self,
        image: Tensor,
        tile: int = TILE,
        margin: int = MARGIN,
        prepare: Callable[[Tensor], Tensor] = lambda part: part,
        seen: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Map of one image of any size, computed in tiles if it is larger than one tile.

        Each tile is computed with a margin from its neighbors, and contributes only its own cells. Without attention,
        the result equals that for the whole image if the margin is at least half the receptive field; attention gates
        see the tile instead of the image.

        Args:
            image: image ``(1, 3, H, W)``, normalized unless ``prepare`` does it.
            tile: side of a tile without its margin, a multiple of the stride.
            margin: width of the margin, a multiple of the stride.
            prepare: moves a tile to the network's device and normalizes it, so that only one tile of a large image is
                there at a time.
            seen: called with the last feature map ``(1, C, h, w)``, or with each tile's own part of it.

        Returns:
            People per cell ``(1, 1, ceil(H / stride), ceil(W / stride))``.
        """
        s = self.stride
        if tile < s or tile % s or margin < 0 or margin % s:
            raise ValueError(f"tile and margin must be multiples of the stride {s}, got {tile} and {margin}")
        height, width = image.shape[2:]
        if height <= tile and width <= tile:
            return self._map(prepare(image), seen)
        whole = image.new_zeros(1, 1, -(-height // s), -(-width // s), dtype=torch.float32)
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                above, before = max(top - margin, 0), max(left - margin, 0)
                rows, columns = (top - above) // s, (left - before) // s
                own = (..., slice(rows, rows + tile // s), slice(columns, columns + tile // s))
                taken = None if seen is None else partial(_see, seen, own)
                part = self._map(
                    prepare(image[:, :, above : top + tile + margin, before : left + tile + margin]), taken
                )
                whole[:, :, top // s : (top + tile) // s, left // s : (left + tile) // s] = part[own]
        return whole

    def _map(self, inputs: Tensor, seen: Callable[[Tensor], None] | None = None) -> Tensor:
        check_images(inputs, self.backbone.in_channels, type(self).__name__)
        height, width = inputs.shape[2:]
        padding = (0, -width % self.stride, 0, -height % self.stride)
        if any(padding):
            inputs = F.pad(inputs, padding)
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        density = None
        if self.compute is not None:
            density, features = self.compute(inputs)
        else:
            features = self.backbone(inputs)[-1]
        if seen is not None:
            seen(features)
        return self.head(features) if density is None else density

    def train(self, mode: bool = True) -> CrowdCounter:
        """Set training mode."""
        self._settled = []
        return super().train(mode)

    def _settle_norms(self, images: int) -> None:
        """Make batch norms use their running statistics for a single-image batch; restore their modes for others.

        They stay so during the backward pass, in which blocks may be recomputed (``with_cp``).
        """
        for norm in self._settled:
            norm.train()
        norms: list[nn.Module] = [
            norm for norm in self.backbone.modules() if isinstance(norm, _BatchNorm) and norm.training
        ]
        self._settled = norms if images == 1 else []
        for norm in self._settled:
            norm.eval()


def _see(seen: Callable[[Tensor], None], own: Any, features: Tensor) -> None:
    """Show the part of a tile's map that is its own."""
    seen(features[own])


def sum_cells(density: Tensor, stride: int) -> Tensor:
    """Sum people per pixel ``(N, 1, H, W)`` to people per cell ``(N, 1, ceil(H / stride), ceil(W / stride))``, exactly.

    Examples:
        >>> sum_cells(torch.ones(1, 1, 3, 4), 2).tolist()
        [[[[4.0, 4.0], [2.0, 2.0]]]]
    """
    height, width = density.shape[2:]
    padded = F.pad(density, (0, -width % stride, 0, -height % stride))
    return F.avg_pool2d(padded, stride, divisor_override=1)

"""mmsegmentation's segmentor, adapted to the training, timing and publishing of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.nn import functional as F

from ean_core.hub import HubNetwork
from ean_core.weights.loading import PretrainedOrRaise

from . import losses  # noqa: F401  # registers the loss that trained networks name
from .library import MODELS as PARTS
from .library import SCOPE, EncoderDecoder


@MODELS.register_module()
class Segmentor(HubNetwork, PretrainedOrRaise, EncoderDecoder):
    """mmsegmentation's ``EncoderDecoder`` with weights in channels-last order, which is faster on most machines.

    It can be built outside of mmsegmentation's registry scope, and raises an error if the keys of a checkpoint do not
    fit. The zoo publishes segmentation models of this class.

    Args:
        backbone, decode_head, data_preprocessor: as in mmsegmentation.
        test_cfg: as in mmsegmentation, by default ``mode="whole"``. With ``shorter_side=512``, images are first
            resized to that shorter side, the longer side being at most four times as long, as by
            ``Resize(scale=(2048, 512), keep_ratio=True)`` in a pipeline (but antialiased when shrinking), so that
            prediction needs no pipeline. Mode ``tensor`` returns logits of images at the size they come in.
        channels_last: whether to keep weights in that order.
        others: further arguments of ``EncoderDecoder``.

    ``compute``, if it is set, maps normalized images to logits of their size, in place of backbone and head.
    """

    pipeline = "image-segmentation"
    compute: Callable[[Tensor], Sequence[Tensor]] | None = None

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        *,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        channels_last: bool = True,
        **others: Any,
    ) -> None:
        with DefaultScope.overwrite_default_scope(SCOPE):  # regardless of what ran before in this process
            if not isinstance(data_preprocessor, nn.Module):
                data_preprocessor = PARTS.build({"type": "SegDataPreProcessor", **(data_preprocessor or {})})
            super().__init__(
                backbone=ConfigDict(backbone),
                decode_head=ConfigDict(decode_head),
                data_preprocessor=data_preprocessor,
                test_cfg=ConfigDict({"mode": "whole", **(test_cfg or {})}),
                **others,
            )
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Logits ``(N, classes, H, W)`` of normalized images ``(N, 3, H, W)``."""
        if self.compute is not None:
            return self.compute(inputs)[0]
        return super().encode_decode(inputs, batch_img_metas)

    def inference(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Logits ``(N, classes, h, w)`` of normalized images ``(N, 3, H, W)``, at their test size.

        Raises:
            ValueError: if images that need resizing are padded, since the padding would be resized with them.
        """
        size = tested_size(inputs.shape[2:], self.test_cfg.get("shorter_side"))
        if size != tuple(inputs.shape[2:]):
            if any(any(meta.get("img_padding_size", ())) for meta in batch_img_metas):
                raise ValueError(
                    "test_cfg.shorter_side needs images without padding; remove data_preprocessor.test_cfg"
                )
            smaller = size[0] < inputs.shape[2]
            inputs = F.interpolate(inputs, size, mode="bilinear", align_corners=False, antialias=smaller)
            batch_img_metas = [{**meta, "img_shape": size, "pad_shape": size} for meta in batch_img_metas]
        return super().inference(inputs, batch_img_metas)


def tested_size(shape: Sequence[int], shorter_side: int | None) -> tuple[int, int]:
    """Height and width at which an image is tested.

    Args:
        shape: height and width of the image.
        shorter_side: length of the shorter side in pixels; None keeps the size.

    Examples:
        >>> tested_size((375, 500), 512), tested_size((100, 1000), 512), tested_size((375, 500), None)
        ((512, 683), (205, 2048), (375, 500))
    """
    if shorter_side is None:
        return shape[0], shape[1]
    factor = min(shorter_side / min(shape), 4 * shorter_side / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))

"""A segmentor: mmsegmentation's, in the form that training, timing and publishing here rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mmseg.registry
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmseg.models import EncoderDecoder
from torch import nn

from ean_core.checkpoint import PretrainedOrRaise


@MODELS.register_module()
class Segmentor(PretrainedOrRaise, EncoderDecoder):
    """mmsegmentation's ``EncoderDecoder`` with weights in channels-last order, the faster one on most machines.

    It is built without a registry scope, too, takes a checkpoint whose keys do not fit as an error, and is what the zoo
    publishes for segmentation.

    Args:
        backbone, decode_head, data_preprocessor, test_cfg: as in mmsegmentation; whole images are tested by default.
        channels_last: whether weights are in that order.
        others: of ``EncoderDecoder``.
    """

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
        if isinstance(data_preprocessor, Mapping):
            data_preprocessor = mmseg.registry.MODELS.build(dict(data_preprocessor))
        super().__init__(
            backbone=ConfigDict(backbone),
            decode_head=ConfigDict(decode_head),
            data_preprocessor=data_preprocessor,
            test_cfg=ConfigDict(test_cfg or {"mode": "whole"}),
            **others,
        )
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)

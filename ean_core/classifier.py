"""Image classification: backbone, global average pooling, linear head."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import METRICS, MODELS
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn import functional as F

from ean_core.common.bits import pack_bits
from ean_core.common.errors import unknown_name
from ean_core.common.inputs import check_images
from ean_core.weights.loading import PretrainedOrRaise

from .backbone import EANResNet, FeatureInfo
from .hub import HubNetwork
from .networks import KeepsSettings


@MODELS.register_module()
class ImagePreprocessor(KeepsSettings, BaseDataPreprocessor):
    """Moves a batch to the model's device and normalizes its images.

    Args:
        mean, std: one value per channel, in units of pixel values (0 to 255).

    Examples:
        >>> preprocess = ImagePreprocessor(mean=[128.0], std=[64.0])
        >>> preprocess({"inputs": torch.full((1, 1, 2, 2), 192, dtype=torch.uint8)})["inputs"].unique()
        tensor([1.])
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(non_blocking=True)
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(f"mean and std need one value per channel, with std above 0; got mean={mean}, std={std}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalize ``data['inputs']``, uint8 or float ``(N, C, H, W)``; other entries are only moved."""
        data = dict(self.cast_data(data))
        data["inputs"] = (data["inputs"].float() - self.mean) / self.std
        return data


@MODELS.register_module()
class ImageClassifier(HubNetwork, PretrainedOrRaise, BaseModel):
    """A backbone followed by global average pooling and a linear layer on its last feature map.

    Its parts have the names of timm's models: ``forward_features``, ``forward_head``, ``reset_classifier``, ….

    Args:
        backbone: an EAN backbone, or its config.
        num_classes: number of classes; 0 for a network without the linear layer, whose output are the pooled features.
        data_preprocessor: the module that normalizes the images, or its config.
        label_smoothing: label smoothing of the cross-entropy loss, in ``[0, 1)``.
        channels_last: keep weights and images in channels-last order, which is faster on most machines.
        compile_blocks: compile each block with its attention separately (see ``EANResNet.compile_blocks``).
        global_pool: ``'avg'``, or ``''`` for none, which needs ``num_classes=0``: the output is the last feature map.
        init_cfg: as in OpenMMLab.

    Examples:
        >>> model = ImageClassifier(dict(type='EANResNetCIFAR', depth=20, scheme='none'), 10)
        >>> model.reset_classifier(0)
        >>> model(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 64])
    """

    pipeline = "image-classification"

    def __init__(
        self,
        backbone: EANResNet | Mapping[str, Any],
        num_classes: int,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        *,
        label_smoothing: float = 0.0,
        channels_last: bool = True,
        compile_blocks: bool = False,
        global_pool: str = "avg",
        init_cfg: Any = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone: EANResNet = backbone if isinstance(backbone, nn.Module) else last_map_of(backbone)
        self.num_classes, self.global_pool = _checked_head(num_classes, global_pool)
        self.fc: nn.Linear | nn.Identity = self._new_head()
        self.data_preprocessor: BaseDataPreprocessor
        self.label_smoothing = label_smoothing
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        if compile_blocks:
            self.backbone.compile_blocks()

    @property
    def num_features(self) -> int:
        """Channels of the last feature map."""
        return self.backbone.out_channels[-1]

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, stride and module name of each stage's feature map, in timm's form."""
        known = self.backbone.feature_info
        return FeatureInfo(({**each, "module": f"backbone.{each['module']}"} for each in known), known.out_indices)

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Return the last feature map ``(N, num_features, h, w)`` of normalized images ``(N, C, H, W)``."""
        return self.backbone(self.prepare(inputs))[-1]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits ``(N, num_classes)`` from the last feature map ``(N, num_features, h, w)``.

        Args:
            features: the feature map.
            pre_logits: return the input of the linear layer instead, ``(N, num_features)``.
        """
        pooled = features.mean((2, 3)) if self.global_pool else features
        return pooled if pre_logits else self.fc(pooled)

    def head(self, features: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` from the last feature map ``(N, C, H, W)``."""
        return self.forward_head(features)

    def changed_settings(self) -> dict[str, Any]:
        """The current head."""
        return {"num_classes": self.num_classes, "global_pool": self.global_pool}

    def get_classifier(self) -> nn.Linear | nn.Identity:
        """Return the linear layer, or ``nn.Identity`` if there is none."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer by a newly initialized one.

        Args:
            num_classes: number of classes; 0 for no linear layer.
            global_pool: see :class:`ImageClassifier`; None keeps it.

        Raises:
            ValueError: if they do not go together; the network is then unchanged.
        """
        kept = self.global_pool if global_pool is None else global_pool
        self.num_classes, self.global_pool = _checked_head(num_classes, kept)
        like = next(self.backbone.parameters())
        self.fc = self._new_head().to(like.device, like.dtype).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass to save memory, or stop doing so."""
        self.backbone.set_grad_checkpointing(enable)

    def _new_head(self) -> nn.Linear | nn.Identity:
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()

    def prepare(self, inputs: Tensor) -> Tensor:
        """Normalized images ``(N, C, H, W)`` in the memory format of the weights.

        Raises:
            ValueError: if they are not a batch of float images with the network's channels.
        """
        check_images(inputs, self.backbone.in_channels, type(self).__name__)
        return inputs.contiguous(memory_format=torch.channels_last) if self.channels_last else inputs

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor | None = None,
        mode: Literal["tensor", "loss", "predict"] = "tensor",
    ) -> Tensor | dict[str, Tensor] | list[dict[str, int]]:
        """Classify normalized images.

        Args:
            inputs: ``(N, C, H, W)``.
            labels: class indices ``(N,)``; optional in mode ``tensor``.
            mode: ``tensor`` returns logits ``(N, num_classes)``, or features if ``num_classes=0``; ``loss`` the
                cross-entropy, ``predict`` one dict per image: ``prediction``, ``label``, and ``rank``, the number of
                other classes whose score is not below the label's.
        """
        logits = self.head(self.forward_features(inputs))
        if isinstance(mode, Proxy):  # symbolic tracing replaces all arguments; the graph computes logits
            return logits
        if mode not in ("tensor", "loss", "predict"):
            raise unknown_name("mode", mode, ("tensor", "loss", "predict"))
        if mode == "tensor":
            return logits
        if not self.num_classes:
            raise ValueError(f"mode={mode!r} needs classes, and this network has none; reset_classifier() adds them")
        if labels is None:
            raise ValueError(f"mode={mode!r} needs labels")
        if mode == "loss":
            return {"loss": F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)}
        ranks = label_ranks(logits, labels)
        return [
            {"prediction": prediction, "label": label, "rank": rank}
            for prediction, label, rank in zip(logits.argmax(1).tolist(), labels.tolist(), ranks.tolist(), strict=True)
        ]


def _checked_head(num_classes: int, global_pool: str) -> tuple[int, str]:
    if num_classes < 0 or num_classes == 1:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}; 0 leaves the classifier out")
    if global_pool not in ("avg", ""):
        raise unknown_name("global_pool", global_pool, ("avg", ""))
    if num_classes and not global_pool:
        raise ValueError(f"global_pool='' returns the feature map and needs num_classes=0, got {num_classes}")
    return num_classes, global_pool


def last_map_of(config: Mapping[str, Any]) -> EANResNet:
    """Build a backbone that returns only its last feature map, unless its config sets ``out_indices``."""
    backbone = MODELS.build(dict(config))
    if config.get("out_indices") is None:
        backbone.out_indices = backbone.out_indices[-1:]
    return backbone


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of other classes that score at least as high as the label: 0 if correct; ties and NaN count as wrong.

    Args:
        logits: ``(N, K)``.
        labels: ``(N,)``.
    """
    own = logits.gather(1, labels[:, None])
    return logits.shape[1] - 1 - (logits < own).sum(1)


@METRICS.register_module()
class TopK(BaseMetric):
    """Top-k accuracies in percent, ``accuracy/top1``, ``accuracy/top5``, …, and Wilson's 95 % intervals over images.

    :attr:`correct` says which images were right, so that two networks can be compared image by image.

    Args:
        topk: the values of k.
    """

    default_prefix = "accuracy"

    def __init__(self, topk: Sequence[int] = (1,), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.topk = tuple(topk)
        #: 95 % intervals of the last evaluation, by name of the metric.
        self.intervals: dict[str, list[float]] = {}
        #: Of the last evaluation: ``bits``, whether each image's top class was right (:func:`pack_bits`), and
        #: ``labels``, a hash of the labels in the same order, which differs if the images or their order do.
        self.correct: dict[str, str] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results.extend((sample["rank"], sample["label"]) for sample in data_samples)

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        ranks, labels = zip(*results, strict=True)
        correct = {f"top{k}": sum(rank < k for rank in ranks) for k in self.topk}
        self.intervals = {f"{self.prefix}/{name}": _wilson(count, len(results)) for name, count in correct.items()}
        order = hashlib.sha256(" ".join(map(str, labels)).encode()).hexdigest()
        self.correct = {"bits": pack_bits([rank == 0 for rank in ranks]), "labels": order}
        return {name: 100 * count / len(results) for name, count in correct.items()}


def _wilson(correct: int, images: int) -> list[float]:
    """Wilson's 95 % interval of a proportion, in percent.

    Examples:
        >>> [round(end, 1) for end in _wilson(90, 100)]
        [82.6, 94.5]
    """
    z = NormalDist().inv_cdf(0.975)
    share, squared = correct / images, z * z / images
    center, half = share + squared / 2, z * math.sqrt(share * (1 - share) / images + squared / (4 * images))
    return [100 * (center - half) / (1 + squared), 100 * (center + half) / (1 + squared)]

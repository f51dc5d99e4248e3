"""Cross-entropy of pixels that takes class weights where pixels are ignored, as at the borders of VOC's objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

REDUCTIONS = ("none", "mean", "sum")


@MODELS.register_module()
class MaskedCrossEntropyLoss(nn.Module):
    """mmsegmentation's ``CrossEntropyLoss`` by softmax, for class weights and ignored pixels together.

    mmsegmentation 1.2 looks up the class weight of ignored labels too, and fails. Here the mean is that of
    :func:`torch.nn.functional.cross_entropy` with ``weight`` and ``ignore_index``: the sum of the weighted losses over
    the sum of the weights of all pixels that are not ignored. Without such pixels it is 0. The loss is computed in
    float32, also under autocast.

    It is registered in mmengine's root registry, so the decode heads of all OpenMMLab libraries find it.

    Args:
        reduction: ``mean``, ``sum`` or ``none``.
        class_weight: one weight per class; None for equal weights.
        loss_weight: factor of the loss.
        loss_name: name in the log; it must begin with ``loss_`` to be part of the total.
        avg_non_ignore: without class weights, whether the mean is over the pixels that are not ignored, instead of all
            pixels (mmsegmentation's default). With class weights it always is.

    Raises:
        ValueError: if a weight is negative or not finite, or the reduction is unknown.
    """

    def __init__(
        self,
        reduction: str = "mean",
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
        loss_name: str = "loss_ce",
        avg_non_ignore: bool = True,
        use_sigmoid: bool = False,
        use_mask: bool = False,
    ) -> None:
        super().__init__()
        if use_sigmoid or use_mask:
            raise ValueError(f"{type(self).__name__} is by softmax; for use_sigmoid or use_mask take CrossEntropyLoss")
        if isinstance(class_weight, str):
            raise ValueError(f"class_weight takes one number per class, got the text {class_weight!r}")
        self.reduction = _known(reduction)
        self.class_weight = None if class_weight is None else [float(weight) for weight in class_weight]
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.class_weight or ()):
            raise ValueError(f"class_weight must be finite and not negative, got {self.class_weight}")
        self.loss_weight = loss_weight
        self.loss_name = loss_name
        self.avg_non_ignore = avg_non_ignore

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int = -100,
    ) -> Tensor:
        """Return the loss, ``()``, or ``(N, H, W)`` for the reduction ``none``.

        Args:
            cls_score: logits ``(N, C, H, W)``.
            label: ``(N, H, W)``, from 0 to ``C - 1``, or ``ignore_index``.
            weight: factor of each pixel's loss ``(N, H, W)``, as from a sampler of hard pixels; as in mmsegmentation,
                it does not enter the divisor of the mean.
            avg_factor: divisor of the mean, in place of the usual one.
            reduction_override: in place of ``reduction``.
            ignore_index: label of pixels without loss.

        Raises:
            ValueError: if the number of class weights is not ``C``, a label is outside, or ``avg_factor`` is given for
                a sum.
        """
        reduction = _known(reduction_override or self.reduction)
        classes = cls_score.shape[1]
        if self.class_weight is not None and len(self.class_weight) != classes:
            raise ValueError(f"class_weight has {len(self.class_weight)} weights, the network {classes} classes")
        if avg_factor is not None and reduction == "sum":
            raise ValueError("avg_factor needs reduction='mean', got 'sum'")
        ignored = label == ignore_index
        outside = ~ignored & ((label < 0) | (label >= classes))
        if outside.any():  # PyTorch would end the process on a GPU
            found = sorted(label[outside].unique().tolist())
            raise ValueError(
                f"labels {', '.join(map(str, found[:8]))} are outside of the network's {classes} classes, 0 to "
                f"{classes - 1}; ignored is {ignore_index}"
            )
        with torch.autocast(cls_score.device.type, enabled=False):
            logits = cls_score.float()
            class_weight = None if self.class_weight is None else logits.new_tensor(self.class_weight)
            losses = F.cross_entropy(logits, label, class_weight, ignore_index=ignore_index, reduction="none")
            if weight is not None:
                losses = losses * weight.float()
            if reduction == "none":
                return self.loss_weight * losses
            total = losses.sum()
            if reduction == "mean":
                total = total / _divisor(label, ignored, class_weight, self.avg_non_ignore, avg_factor)
            return self.loss_weight * total

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, class_weight={self.class_weight}, avg_non_ignore={self.avg_non_ignore}"


def _divisor(
    label: Tensor, ignored: Tensor, class_weight: Tensor | None, avg_non_ignore: bool, given: float | Tensor | None
) -> Tensor:
    """Divisor of the mean; 1 in place of 0, where the sum is 0 too."""
    if given is not None:
        divisor = torch.as_tensor(given, dtype=torch.float32, device=label.device)
    elif class_weight is not None:
        divisor = class_weight[label.masked_fill(ignored, 0)].masked_fill(ignored, 0).sum()
    elif avg_non_ignore:
        divisor = (~ignored).sum().float()
    else:
        divisor = torch.tensor(float(label.numel()), device=label.device)
    return torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def _known(reduction: str) -> str:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    return reduction

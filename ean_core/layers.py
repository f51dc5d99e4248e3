"""Convolutions, norms and residual blocks, with torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ean_core.common.errors import unknown_name

Style = Literal["pytorch", "caffe"]

NORMS: dict[str, type[nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "BN2d": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "GN": nn.GroupNorm,
    "IN": nn.InstanceNorm2d,
}


@dataclass(frozen=True)
class LayerFactory:
    """Builds a network's convolutions and norms from OpenMMLab's ``conv_cfg`` and ``norm_cfg``.

    Args:
        conv_cfg: ``None`` or ``dict(type='Conv2d')`` for PyTorch's convolution; other types are looked up in MODELS.
        norm_cfg: ``dict(type='BN' | 'SyncBN' | 'GN' | 'IN', requires_grad=True, ...)``; other types are looked up
            in MODELS.
        bias: whether every convolution has a bias, as in the authors' code.
    """

    conv_cfg: Mapping[str, Any] | None = None
    norm_cfg: Mapping[str, Any] = field(default_factory=lambda: {"type": "BN"})
    bias: bool = False

    def conv(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, dilation: int = 1
    ) -> nn.Module:
        """A convolution whose output has ``1 / stride`` of the input size, for odd kernels."""
        options = dict(self.conv_cfg or {"type": "Conv2d"})
        kind = options.pop("type")
        plain = StridedPointwise if kernel == 1 and stride > 1 and in_channels < 16 else nn.Conv2d
        layer = plain if kind == "Conv2d" else _registered(kind, "conv_cfg type", ["Conv2d"])
        padding = dilation * (kernel - 1) // 2
        options.setdefault("bias", self.bias)
        return layer(in_channels, out_channels, kernel, stride=stride, padding=padding, dilation=dilation, **options)

    def norm(self, channels: int) -> nn.Module:
        """A normalization layer for ``channels`` channels."""
        options = dict(self.norm_cfg)
        kind = options.pop("type")
        requires_grad = options.pop("requires_grad", True)
        layer = NORMS.get(kind) or _registered(kind, "norm_cfg type", NORMS)
        norm = layer(options.pop("num_groups"), channels, **options) if kind == "GN" else layer(channels, **options)
        for parameter in norm.parameters():
            parameter.requires_grad_(requires_grad)
        return norm


class StridedPointwise(nn.Conv2d):
    """A strided 1x1 convolution that subsamples its input before an unstrided convolution.

    In channels-last order with few channels, oneDNN's gradient of a strided 1x1 convolution writes out of bounds
    (oneDNN issue 6035, seen in PyTorch 2.15 on CPUs with AVX2). The unstrided convolution does not have this bug.
    """

    def forward(self, x: Tensor) -> Tensor:
        down, right = self.stride
        return F.conv2d(x[:, :, ::down, ::right], self.weight, self.bias, groups=self.groups)


#: Convolution types that inference may fold and reorder.
PLAIN_CONVOLUTIONS = (nn.Conv2d, StridedPointwise)


def _registered(kind: str, what: str, builtin: Any) -> type[nn.Module]:
    found = MODELS.get(kind)
    if found is None:
        raise unknown_name(what, kind, builtin)
    return found


class ResidualBlock(nn.Module):
    """The two branches of a residual block; the network adds them, with or without attention in between.

    ``forward`` maps ``(N, in_channels, H, W)`` to the residual branch ``f(x)`` after its last norm and the shortcut,
    both ``(N, channels * expansion, H / stride, W / stride)``.
    """

    expansion: ClassVar[int]

    def __init__(self, downsample: nn.Module | None) -> None:
        super().__init__()
        self.downsample = downsample

    @property
    def layers(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Convolutions of the residual branch, each with its norm; a ReLU follows every pair but the last."""
        raise NotImplementedError

    @property
    def last_norm(self) -> nn.Module:
        """The norm that ends the residual branch."""
        return self.layers[-1][1]

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.residual(x), x if self.downsample is None else self.downsample(x)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions ("Deep Residual Learning", He et al., CVPR 2016, Figure 5 left)."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: LayerFactory,
        *,
        stride: int = 1,
        dilation: int = 1,
        style: Style = "pytorch",
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__(downsample)
        self.conv1 = layers.conv(in_channels, channels, 3, stride=stride, dilation=dilation)
        self.bn1 = layers.norm(channels)
        self.conv2 = layers.conv(channels, channels, 3)
        self.bn2 = layers.norm(channels)

    @property
    def layers(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        return (self.conv1, self.bn1), (self.conv2, self.bn2)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(x))


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions (He et al., Figure 5 right).

    The stride sits on the 3x3 convolution in style ``pytorch``, on the first 1x1 in style ``caffe``.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: LayerFactory,
        *,
        stride: int = 1,
        dilation: int = 1,
        style: Style = "pytorch",
        downsample: nn.Module | None = None,
    ) -> None:
        super().__init__(downsample)
        stride1, stride2 = (1, stride) if style == "pytorch" else (stride, 1)
        self.conv1 = layers.conv(in_channels, channels, 1, stride=stride1)
        self.bn1 = layers.norm(channels)
        self.conv2 = layers.conv(channels, channels, 3, stride=stride2, dilation=dilation)
        self.bn2 = layers.norm(channels)
        self.conv3 = layers.conv(channels, channels * self.expansion, 1)
        self.bn3 = layers.norm(channels * self.expansion)

    @property
    def layers(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        return (self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.bn3(self.conv3(x))

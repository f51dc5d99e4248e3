"""Convolutions, norms, residual blocks and stages, with torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, overload

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ean_core.common.errors import unknown_name

from .attention import Attention, State

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


class BlockContext:
    """Shared attention module and state that a stage passes to one block in one call, beside the feature map.

    The stage makes one object per block and call, so nothing of a call stays on modules, and recomputing a block
    (activation checkpointing) finds the state that its first computation found. It is not a dataclass, because FSDP
    with mixed precision copies dataclasses, and the stage would never see the state that the block sets. Reentrant
    checkpointing from outside cuts the gradient of DIA's state, as of everything that is not a tensor argument;
    ``with_cp`` does not.

    Args:
        attention: the module that the stage's blocks share, if any.
        state: state of that module before the block.
        connection: the block's bit of the scheme as a tensor on the device; None if the block knows it.
    """

    def __init__(
        self, attention: Attention | None = None, state: State = None, connection: Tensor | None = None
    ) -> None:
        self.attention, self.state, self.connection = attention, state, connection
        #: State after the block, which the block sets.
        self.next_state: State = None


#: A function with the signature of :func:`run_block`.
RunBlock = Callable[..., tuple[Tensor, State]]


class ResidualBlock(nn.Module):
    """A residual block: two branches and, if the scheme connects it, attention on the first one.

    Maps ``(N, in_channels, H, W)`` to ``(N, channels * expansion, H / stride, W / stride)``. A block with a module of
    its own (``attention``, Org-full) can be called by itself; one that is connected to the module of its stage is
    called by its :class:`Stage`, or with a context.
    """

    expansion: ClassVar[int]

    def __init__(self, downsample: nn.Module | None) -> None:
        super().__init__()
        self.downsample = downsample
        #: The block's own attention module, if it does not share one.
        self.attention: Attention | None = None
        #: Whether the scheme connects this block.
        self.connected = False
        #: The factor of each channel of the residual branch ``(C,)`` that takes the place of a computed gate.
        self.constant_gate: nn.Parameter | None
        self.register_parameter("constant_gate", None)
        #: Whether the scheme gives this block its constant gate.
        self.constant = False
        #: Drops the residual branch of some images while training (stochastic depth); None if it never does.
        self.drop_path: nn.Module | None = None
        #: Whether to recompute the block in the backward pass instead of keeping its activations.
        self.with_cp = False
        #: Computes the block's output; replaced by a compiled function in ``EANResNet.compile_blocks``.
        self.run: RunBlock = run_block

    @property
    def layers(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Convolutions of the residual branch, each with its norm; a ReLU follows every pair but the last."""
        raise NotImplementedError

    @property
    def last_norm(self) -> nn.Module:
        """The norm that ends the residual branch."""
        return self.layers[-1][1]

    @property
    def norm1(self) -> nn.Module:
        """The norm after the first convolution, by OpenMMLab's name."""
        return self.layers[0][1]

    @property
    def norm2(self) -> nn.Module:
        """The norm after the second convolution, by OpenMMLab's name."""
        return self.layers[1][1]

    def residual(self, x: Tensor) -> Tensor:
        """The residual branch ``f(x)`` after its last norm."""
        raise NotImplementedError

    def drop(self, residual: Tensor) -> Tensor:
        """Drop the residual branch of some images, after attention, while training with stochastic depth."""
        return residual if self.drop_path is None else self.drop_path(residual)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The residual branch ``f(x)``, scaled by the gate if it is constant, and the shortcut, both of the output's
        shape."""
        residual = self.residual(x)
        if self.constant:
            residual = self.scaled(residual)
        return residual, x if self.downsample is None else self.downsample(x)

    def scaled(self, residual: Tensor) -> Tensor:
        """A residual branch ``(N, C, H, W)`` scaled by the constant gate."""
        assert self.constant_gate is not None  # set with the scheme
        return residual * self.constant_gate.to(residual.dtype)[:, None, None]

    def forward(self, x: Tensor, context: BlockContext | None = None) -> Tensor:
        """Return the block's output (Eqn 4).

        Args:
            x: ``(N, in_channels, H, W)``.
            context: what the block shares with its stage in this call; the block sets its ``next_state``.

        Raises:
            ValueError: if the block is connected, but has no attention module and is given none.
        """
        context = context or BlockContext()
        attention = None
        if self.connected or context.connection is not None:
            attention = self.attention if self.attention is not None else context.attention
            if attention is None:
                raise ValueError(
                    "this block is connected to the attention module of its stage; call the stage, or pass the module: "
                    "block(x, BlockContext(stage.attention, state))"
                )
        arguments = (self, attention, x, context.state, context.connection)
        if self.with_cp and x.requires_grad:
            out, context.next_state = checkpoint(self.run, *arguments, use_reentrant=False)
        else:
            out, context.next_state = self.run(*arguments)
        return out


def run_block(
    block: ResidualBlock, attention: Attention | None, x: Tensor, state: State, connection: Tensor | None
) -> tuple[Tensor, State]:
    """Eqn 4: ``x + (a M(f) + (1 - a)) f``, then ReLU as in He et al.; ``a`` is ``connection``, or 1 if that is None.

    Stochastic depth drops the recalibrated branch, before the sum.
    """
    residual, shortcut = block.branches(x)
    if attention is not None:
        # A custom module may not take a connection between 0 and 1.
        arguments = (residual, state) if connection is None else (residual, state, connection)
        residual, state = attention(*arguments)
    return join(block.drop(residual), shortcut), state


def join(residual: Tensor, shortcut: Tensor) -> Tensor:
    """Combine the branches of a block, both ``(N, C, H, W)``, into its output; neither is modified."""
    return torch.relu_(residual + shortcut)


class Stage(nn.Module):
    """Residual blocks at one resolution and the attention module that they share.

    Maps ``(N, in_channels, H, W)`` to the output of the last block. Length, iteration and indexing, with negative
    indices and slices too, are those of the blocks, whose parameters have the names ``0.…``, ``1.…``; those of the
    attention module start with ``attention.``.

    Args:
        blocks: the blocks, in order.
    """

    def __init__(self, blocks: Iterable[ResidualBlock]) -> None:
        super().__init__()
        for i, block in enumerate(blocks):
            self.add_module(str(i), block)
        #: The shared module; None if no block needs one, or each has its own.
        self.attention: Attention | None = None
        #: The connections as a tensor on the device, one entry per block; see ``EANResNet.scheme_as_data``.
        self.bits: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks; the attention state starts anew."""
        state: State = None
        for i, block in enumerate(self):
            context = BlockContext(self.attention, state, None if self.bits is None else self.bits[i])
            x = block(x, context)
            state = context.next_state
        return x

    @property
    def blocks(self) -> list[ResidualBlock]:
        """The blocks, in order."""
        return [module for name, module in self._modules.items() if name.isdecimal()]  # type: ignore[misc]

    def attention_at(self, i: int) -> Attention | None:
        """Return the attention module that the current scheme connects to block ``i``, or None."""
        block = self[i]
        if not block.connected:
            return None
        return block.attention if block.attention is not None else self.attention

    def __iter__(self) -> Iterator[ResidualBlock]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    @overload
    def __getitem__(self, index: int) -> ResidualBlock: ...

    @overload
    def __getitem__(self, index: slice) -> list[ResidualBlock]: ...

    def __getitem__(self, index: int | slice) -> ResidualBlock | list[ResidualBlock]:
        return self.blocks[index]


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

    @property
    def norm3(self) -> nn.Module:
        """The norm after the third convolution, by OpenMMLab's name."""
        return self.bn3

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.bn3(self.conv3(x))

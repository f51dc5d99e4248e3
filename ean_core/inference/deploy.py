"""Networks for inference, with the same outputs but almost no overhead for attention.

Batch norms and constant gates are folded into convolutions. In a connected bottleneck block, the gate is computed from
the input of the last convolution (see :mod:`~ean_core.inference.gates`), and scale, shortcut and ReLU run in one pass.
Attention thus needs no extra pass over the full residual branch.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, TypeVar, overload

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ean_core.attention import Attention, State
from ean_core.backbone import EANResNet, compile_options, find_backbone, walk
from ean_core.common.inputs import check_images
from ean_core.layers import NORMS, PLAIN_CONVOLUTIONS, ResidualBlock, join

from .gates import GATES, Gate, WindowedGate
from .graphs import CUDAGraphs
from .ops import conv_scale_add_relu, is_pointwise, may_overwrite, precise, scale_add_relu

Model = TypeVar("Model", bound=nn.Module)

#: Form of a deployed block: without attention; with a constant gate, folded into its last layer; with a gate computed
#: from the last convolution's input; with a gate computed from the residual branch and its scale fused into the
#: addition; with the original attention module.
Form = Literal["plain", "constant", "commuted", "joined", "folded"]

#: From this many channels per group on, one factor per group can be read fast without reordering channels.
WIDE_GROUP = 16


@overload
def deploy(
    model: EANResNet, *, dtype: torch.dtype | None = ..., compile: bool = ..., cuda_graphs: bool = ...
) -> DeployedBackbone: ...
@overload
def deploy(model: Model, *, dtype: torch.dtype | None = ..., compile: bool = ..., cuda_graphs: bool = ...) -> Model: ...
def deploy(model: Any, *, dtype: torch.dtype | None = None, compile: bool = False, cuda_graphs: bool = False) -> Any:
    """Return a copy of a network for inference, with the same outputs.

    The copy stays in evaluation mode and its weights require no gradients; the model itself is not changed. Save the
    original model and deploy it after loading, which takes no longer than reading the file. The copy's backbone accepts
    images of any memory format and floating-point type, and works in channels-last format.

    Args:
        model: an EAN backbone, or any model that contains one: a classifier, a counter, a segmentor.
        dtype: type of weights and feature maps; that of the model if None. Gates are computed in at least fp32, and
            the data preprocessor keeps its type.
        compile: compile the backbone on first use, for the shapes it receives.
        cuda_graphs: on a GPU, capture the backbone's kernels on the first pass with each image shape and replay them
            afterwards. This removes launch overhead, which is the entire time of narrow networks.

    Returns:
        An instance of a subclass of the model's class, with a :class:`DeployedBackbone` as its backbone.

    Raises:
        ValueError: if there is no EAN backbone inside, it is already deployed, ``dtype`` is not a floating-point type,
            or both ``compile`` and ``cuda_graphs`` are set.
    """
    if compile and cuda_graphs:
        raise ValueError("compile=True and cuda_graphs=True: choose one; a compiled network launches few kernels")
    copied = _inference_copy(model, commute=True, dtype=dtype)
    backbone = next(module for module in copied.modules() if isinstance(module, DeployedBackbone))
    if compile:
        backbone.compile(**compile_options(64))
    if cuda_graphs:
        backbone.graphs = CUDAGraphs()
    return copied


def fold(model: Any, *, dtype: torch.dtype | None = None) -> Any:
    """Fold only norms and constant gates, and keep attention unchanged, as a general tool would; see :func:`deploy`."""
    return _inference_copy(model, commute=False, dtype=dtype)


def is_deployed(model: nn.Module) -> bool:
    """Whether a model is the copy for inference that :func:`deploy` or :func:`fold` returns."""
    return any(isinstance(module, DeployedBackbone) for module in model.modules())


class Frozen(nn.Module):
    """A model that stays in evaluation mode."""

    def train(self, mode: bool = True) -> Any:
        """Refuse training mode.

        Raises:
            RuntimeError: if ``mode`` is true.
        """
        if mode:
            raise RuntimeError(
                "a deployed network is for inference only: its batch norms are folded into its convolutions. Train "
                "the original network, and deploy it again"
            )
        return super().train(False)


class DeployedModel(Frozen):
    """Mixin for the class of a model with a deployed backbone."""

    def summary(self) -> str:
        """See :meth:`DeployedBackbone.summary`."""
        return next(module for module in self.modules() if isinstance(module, DeployedBackbone)).summary()

    def __reduce__(self) -> tuple[Any, ...]:  # the class is created at run time, and looked up by the model's class
        return _empty_model, (type(self).__bases__[1],), self.__dict__


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _deployed_class(kind: type[nn.Module]) -> type[nn.Module]:
    if kind not in _CLASSES:
        name = f"Deployed{kind.__name__}"
        places = {"__module__": kind.__module__, "__qualname__": name}
        _CLASSES[kind] = type(name, (DeployedModel, kind), places)
    return _CLASSES[kind]


def _empty_model(kind: type[nn.Module]) -> nn.Module:
    made = _deployed_class(kind)
    return made.__new__(made)


class DeployedBackbone(Frozen):
    """An EAN backbone after :func:`deploy`: the same mapping from images to feature maps.

    Args:
        backbone: backbone in evaluation mode; its modules are used, not copied.
        commute: compute gates from the input of the last convolution where possible.
    """

    def __init__(self, backbone: EANResNet, *, commute: bool = True) -> None:
        super().__init__()
        self.family, self.depth, self.in_channels = backbone.family, backbone.depth, backbone.in_channels
        self.attention_cfg, self.shared = backbone.attention_cfg, backbone.shared
        self.scheme, self.stage_blocks = backbone.scheme, backbone.stage_blocks
        self.out_indices, self.out_channels = backbone.out_indices, backbone.out_channels
        self.stem = _stem(backbone)
        used = range(max(self.out_indices) + 1)
        groups_last = [_groups_last(backbone, k) if commute else None for k in used]
        self.stages = nn.ModuleList(nn.ModuleList() for _ in used)
        for k, i, block in backbone.blocks():
            if k in used:
                last = groups_last[k] is not None
                self.stage(k).append(
                    DeployedBlock(block, backbone.attention_at(k, i), commute=commute, groups_last=last)
                )
        for k, groups in enumerate(groups_last):
            if groups is not None:
                self._put_groups_last(k, groups)
        self.graphs: CUDAGraphs | None = None
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of the stages in ``out_indices``, first stage first, in the network's type.

        Raises:
            ValueError: if ``x`` is not a batch of float images with the network's channels.
        """
        check_images(x, self.in_channels, type(self).__name__)
        if torch.is_autocast_enabled(x.device.type):  # the network's type is fixed at deployment
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x)
        if self.graphs is not None and x.is_cuda and may_overwrite(x):
            return self.graphs(self.run, x)
        return self.run(x)

    def run(self, x: Tensor) -> tuple[Tensor, ...]:
        """:meth:`forward`, operator by operator."""
        x = x.to(self.dtype, memory_format=torch.channels_last)
        stages: list[Any] = [*self.stages]
        return walk(stages, self.stem(x), DeployedBlock.__call__, self.out_indices)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the feature maps."""
        return next(self.stem.parameters()).dtype

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Change the type of weights and feature maps; gates get at least fp32, without intermediate rounding."""
        self.stem.to(dtype)
        for block in self.blocks():
            for part in block.children():
                part.to(precise(dtype) if isinstance(part, Gate) else dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        if self.graphs is not None:
            self.graphs.clear()  # captured graphs read the weights at their old addresses
        return super()._apply(fn, recurse)

    def blocks(self) -> Iterator[DeployedBlock]:
        """Iterate over all blocks, in order."""
        for k in range(len(self.stages)):
            yield from self.stage(k)  # type: ignore[misc]

    def stage(self, k: int) -> nn.ModuleList:
        """Return the blocks of stage ``k`` (0 for the first)."""
        return self.stages[k]  # type: ignore[return-value]

    def summary(self) -> str:
        """Count the blocks by form, with the reason if a gate could not be commuted.

        ``plain`` blocks have no attention, and ``constant`` ones the same operations: their gate is part of the last
        layer's weights. The gate of ``commuted`` ones is computed from the input of the last
        convolution, that of ``joined`` ones from the residual branch, with the scale fused into the addition;
        ``folded`` ones keep their original attention module.

        Examples:
            >>> backbone = EANResNet(18, 'SE', scheme='10-00-00-00')
            >>> print(deploy(backbone).summary())
            scheme 10-00-00-00: 7 plain, 1 joined (the last convolution of the residual branch is 3x3)
        """
        kinds = Counter((block.form, block.reason) for block in self.blocks())
        parts = [
            f"{n} {form}" + (f" ({reason})" if reason else "") for (form, reason), n in sorted(kinds.items())[::-1]
        ]
        return f"scheme {self.scheme}: {', '.join(parts)}"

    def _put_groups_last(self, k: int, groups: int) -> None:
        """Reorder the channels of stage ``k`` so that channel ``c`` belongs to group ``c % groups``."""
        blocks: list[Any] = list(self.stage(k))
        order = torch.arange(blocks[0].last[-1].out_channels).unflatten(0, (groups, -1)).t().flatten()
        for block in blocks:
            block.reorder_outputs(order)
        for block in (*blocks[1:], self.stage(k + 1)[0]):
            block.reorder_inputs(order)


class DeployedBlock(nn.Module):
    """A residual block for inference, with its attention if it is connected.

    Args:
        block: block in evaluation mode; its modules are used, not copied.
        attention: attention module connected to it, if any.
        commute: compute the gate from the input of the last convolution if possible.
        groups_last: the block's channels will be reordered so that channel ``c`` belongs to group ``c % G``.
    """

    def __init__(
        self, block: ResidualBlock, attention: Attention | None, *, commute: bool = True, groups_last: bool = False
    ) -> None:
        super().__init__()
        *first, last = block.layers
        body: list[nn.Module] = []
        for conv, norm in first:
            body += [*_folded(conv, norm), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*body)
        self.last = nn.Sequential(*_folded(*last))
        self.downsample: nn.Sequential | None = None
        if block.downsample is not None:
            *pooling, conv, norm = block.downsample.children()
            self.downsample = nn.Sequential(*pooling, *_folded(conv, norm))
        self.groups_last = groups_last
        self.form, self.reason = _form(attention, self.last, commute)
        if block.constant:
            self.form = "constant"
            _scale_outputs(self.last, block.constant_gate)
        self.attention: nn.Module | None = attention
        if attention is not None and self.form in ("commuted", "joined"):
            before: Any = self.last[0] if self.form == "commuted" else None
            self.attention = GATES[type(attention)](attention, before, groups_last)
            if attention.window is not None:
                self.attention = WindowedGate(self.attention, attention.window)
        self.gain = 1.0 if attention is None or self.form == "folded" else attention.gain
        if self.form == "commuted" and self.gain != 1:  # the gate does not depend on the convolution any more
            self.last[0] = _scaled(self.last[0], self.gain)
            self.gain = 1.0

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the block's output and the new state of the stage."""
        z = self.body(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.finish(z, shortcut, state)

    def finish(self, z: Tensor, shortcut: Tensor, state: State) -> tuple[Tensor, State]:
        """Run the rest of the block from ``z``, the input of the last convolution: the part that attention affects."""
        if self.attention is None:
            return conv_scale_add_relu(self.last, z, shortcut), state
        if self.form == "commuted":
            factor, state = self.attention(z, state)
            return conv_scale_add_relu(self.last, z, shortcut, factor, groups_last=self.groups_last), state
        residual = self.last(z)
        if self.form == "joined":
            factor, state = self.attention(residual, state)
            if self.gain != 1:
                factor = self.gain * factor
            return scale_add_relu(residual, shortcut, factor, groups_last=self.groups_last), state
        residual, state = self.attention(residual, state)  # the module may keep a reference to what it returns
        return join(residual, shortcut), state

    def reorder_outputs(self, order: Tensor) -> None:
        """Reorder output channels: new channel ``j`` is old channel ``order[j]``."""
        for sequence in (self.last, self.downsample):
            if sequence is not None:
                conv: Any = sequence[-1]
                conv.weight.data = conv.weight[order]
                if conv.bias is not None:
                    conv.bias.data = conv.bias[order]

    def reorder_inputs(self, order: Tensor) -> None:
        """Reorder input channels: new channel ``j`` is old channel ``order[j]``."""
        for sequence in (self.body, self.downsample):
            if sequence is not None:
                conv = next(module for module in sequence if isinstance(module, nn.Conv2d))
                conv.weight.data = conv.weight[:, order]


def _inference_copy(model: nn.Module, *, commute: bool, dtype: torch.dtype | None) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ValueError(f"deploy takes a network, got {model!r}; for example EANResNet(50)")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype={dtype} is not a floating-point type; for example torch.bfloat16")
    if is_deployed(model):
        raise ValueError(f"this {type(model).__name__} is already deployed; deploy the original network")
    own = find_backbone(model)
    dtype = dtype or next(own.parameters()).dtype
    copied = copy.deepcopy(model).eval()
    backbone = find_backbone(copied).double()  # round products of weights only once, at the end
    with torch.no_grad():
        deployed = DeployedBackbone(backbone, commute=commute)
    if commute and any(block.form in ("joined", "folded") for block in deployed.blocks()):
        print_log(f"deployed: {deployed.summary()}", logger="current", level=logging.DEBUG)
    deployed.set_dtype(dtype)
    deployed.to(memory_format=torch.channels_last)
    if copied is backbone:
        copied = deployed
    else:
        place = nn.Identity()
        _replace(copied, backbone, place)
        preprocessor = copy.deepcopy(getattr(copied, "data_preprocessor", None))
        copied.requires_grad_(False).to(dtype).to(memory_format=torch.channels_last)
        if preprocessor is not None:  # images are normalized before they are rounded
            copied.data_preprocessor = preprocessor
        _replace(copied, place, deployed)
        copied.__class__ = _deployed_class(type(model))
    return copied


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


def _form(attention: Attention | None, last: nn.Sequential, commute: bool) -> tuple[Form, str]:
    """Return the form of a block, and the reason if its gate cannot be commuted."""
    conv: Any = last[0]
    if attention is None:
        return "plain", ""
    if not commute:
        return "folded", ""
    if type(attention) not in GATES:
        return "folded", f"{type(attention).__name__} has no inference gate; `register_gate` adds one"
    if len(last) > 1:
        return "joined", f"{type(last[-1]).__name__} cannot be folded into {type(conv).__name__}"
    if not is_pointwise(conv):
        return "joined", "the last convolution of the residual branch is {}x{}".format(*conv.kernel_size)
    return "commuted", ""


def _folded(conv: nn.Module, norm: nn.Module) -> list[nn.Module]:
    """Fold a norm into its convolution; return both unchanged if that is not possible."""
    if not _foldable(conv, norm):
        return [conv, norm]
    return [fuse_conv_bn_eval(conv, norm)]  # type: ignore[type-var, arg-type]


def _scaled(layer: Any, factor: Tensor | float) -> nn.Module:
    """Copy a convolution or an affine norm, with its output multiplied by a number or by ``(C,)``."""
    scaled = copy.copy(layer)
    scaled._parameters = {  # the gate may share the original ones
        name: None if value is None else nn.Parameter((factor * value.movedim(0, -1)).movedim(-1, 0))
        for name, value in layer._parameters.items()
    }
    return scaled


class ChannelScale(nn.Module):
    """Multiplies the channels of ``(N, C, H, W)``, after layers that have no weights to fold a factor into.

    Args:
        factor: ``(C,)``.
    """

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.factor = nn.Parameter(factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor[:, None, None]


def _scale_outputs(last: nn.Sequential, factor: Any) -> None:
    """Multiply the output of a block's last layers by ``factor``, ``(C,)``, in their weights where that is possible."""
    end: Any = last[-1]
    if type(end) in (*PLAIN_CONVOLUTIONS, *NORMS.values()) and end.weight is not None:
        last[-1] = _scaled(end, factor)
    else:
        last.append(ChannelScale(factor))


def _foldable(conv: nn.Module, norm: nn.Module) -> bool:
    # Check exact types: subclasses, such as convolutions with standardized weights, may compute something else.
    norms = (nn.BatchNorm2d, nn.SyncBatchNorm)
    return type(conv) in PLAIN_CONVOLUTIONS and type(norm) in norms and getattr(norm, "running_mean", None) is not None


def _stem(backbone: EANResNet) -> nn.Sequential:
    layers = (
        [(backbone.conv1, backbone.bn1)]
        if not hasattr(backbone, "stem")
        else [(backbone.stem[i], backbone.stem[i + 1]) for i in range(0, len(backbone.stem), 3)]
    )
    modules: list[nn.Module] = []
    for conv, norm in layers:
        modules += [*_folded(conv, norm), nn.ReLU(inplace=True)]
    *rest, relu = modules
    # ReLU and maximum commute, and after pooling only a quarter of the values are left.
    return nn.Sequential(*rest, backbone.maxpool, relu)


def _groups_last(backbone: EANResNet, k: int) -> int | None:
    """Return the number of channel groups of the gates of stage ``k``; None if reordering is useless or impossible.

    A stage keeps its channel order if its feature map is returned or it has layers other than plain convolutions.
    """
    blocks: list[Any] = list(backbone.stage(k))
    modules = [a for i in range(len(blocks)) if (a := backbone.attention_at(k, i)) is not None]
    groups = {GATES[type(a)].groups(a) if type(a) in GATES else None for a in modules}
    # Without a convolution on the shortcut of the first block, the stage inherits the channel order of its input.
    if k in backbone.out_indices or len(groups) != 1 or blocks[0].downsample is None:
        return None
    (found,) = groups
    if found is None or not 1 < backbone.stage_channels[k] // found < WIDE_GROUP:
        return None
    ends = [block.layers[-1] for block in blocks] + [b.downsample[-2:] for b in blocks if b.downsample is not None]
    following: Any = backbone.stage(k + 1)[0]
    starts = [block.layers[0][0] for block in (*blocks[1:], following)]
    starts += [None if following.downsample is None else following.downsample[-2]]
    plain = all(type(conv) in PLAIN_CONVOLUTIONS and conv.groups == 1 for conv in starts)
    return found if plain and all(_foldable(conv, norm) for conv, norm in ends) else None

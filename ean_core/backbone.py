"""Residual backbones with attention modules that stages share and a scheme connects to blocks.

"Efficient Attention Network: Accelerate Attention by Searching Where to Plug", Huang et al., arXiv 2011.14058, on
"Deep Residual Learning for Image Recognition", He et al., CVPR 2016.
"""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import chain
from typing import Any, ClassVar, TypeVar

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ean_core.common.errors import unknown_name
from ean_core.common.inputs import check_images
from ean_core.common.memory import copy_over
from ean_core.common.tasks import find_dataset
from ean_core.weights.loading import PretrainedOrRaise, untraced_options
from ean_core.weights.names import rename

from .attention import ATTENTION, Attention, State, attention_class
from .layers import BasicBlock, Bottleneck, LayerFactory, ResidualBlock, Stage, Style, run_block
from .networks import KeepsSettings
from .recorded import FAMILY_DATA, RECORDED, RecordedScheme, find_recorded
from .scheme import CONSTANT, ConnectionScheme

#: Stage, index within the stage (both from 0), and the residual block.
Place = tuple[int, int, ResidualBlock]

Block = TypeVar("Block")


class FeatureInfo(list[dict[str, Any]]):
    """Channels, stride and module of each stage's feature map, with the interface of timm's ``FeatureInfo``.

    Args:
        entries: ``num_chs``, ``reduction`` and ``module`` of each stage.
        out_indices: stages that the network returns; the methods cover these only.
    """

    def __init__(self, entries: Iterable[dict[str, Any]], out_indices: Sequence[int]) -> None:
        super().__init__(entries)
        self.out_indices = tuple(out_indices)

    def channels(self) -> list[int]:
        """Channels of the returned feature maps."""
        return [self[k]["num_chs"] for k in self.out_indices]

    def reduction(self) -> list[int]:
        """Image pixels between neighboring positions of the returned feature maps."""
        return [self[k]["reduction"] for k in self.out_indices]

    def module_name(self) -> list[str]:
        """Names of the modules that give the returned feature maps."""
        return [self[k]["module"] for k in self.out_indices]


@MODELS.register_module()
class EANResNet(KeepsSettings, PretrainedOrRaise, BaseModule):
    """ResNet for photographs (7x7 stem) with searched attention; ``EANResNet()`` is ResNet-50 with EAN-SE.

    Maps ``(N, in_channels, H, W)`` to a tuple of feature maps, one for each of ``out_indices``; with the default
    strides they are at 1/4, 1/8, 1/16 and 1/32 of the image size. Each stage is a
    module that maps its input to its feature map. Parameters have torchvision's names; only ``layer1.attention.*`` etc.
    (``layer1.0.attention.*`` if not shared) are new. A network holds only the attention modules that its scheme uses. A
    block with a constant gate has one trainable factor per channel instead, ``layer1.0.constant_gate``.

    Args:
        depth: 18, 34, 50, 101 or 152.
        attention: name of an attention module, or a dict with its options: ``dict(type='SE', reduction=16)``.
        scheme: ``'ean'`` for the recorded scheme of this depth and attention (cut to ``num_stages``);
            ``'ean:shanghaitech_b'`` for the one found on a data set, or that of ``'ean'`` if there is none; ``'full'``,
            ``'none'``, or anything that :meth:`ConnectionScheme.parse` accepts.
        shared: one module per stage (Share-full, EAN) or one per connected block (Org-full).
        conv_bias: add a bias to every convolution, as in the authors' networks.
        in_channels: channels of the input image.
        stem_channels: channels after the stem; ``base_channels`` if None, as in mmdetection.
        base_channels: width of the first stage, doubled in each following one.
        num_stages: 1 to 4. Longer ``strides`` and ``dilations`` are truncated to it.
        strides, dilations: one value per stage: stride of its first block, dilation of its 3x3 convolutions.
        out_indices: stages to return, 0 for the first and -1 for the last, one or several; None for all. Stages after
            the last one returned are skipped.
        style: ``'pytorch'`` puts the stride of a bottleneck on its 3x3 convolution, ``'caffe'`` on the first 1x1.
        deep_stem: three 3x3 convolutions instead of the 7x7 one (ResNetV1c).
        avg_down: average pooling before a shortcut convolution of stride 1 (ResNetV1d).
        frozen_stages: -1 for none, 0 for the stem, k for the stem and the first k stages including their attention.
        conv_cfg, norm_cfg: as in OpenMMLab, see :class:`LayerFactory`. Norms are named ``bn1`` whatever their type.
        norm_eval: keep batch norms, including those in attention modules, in evaluation mode while training. None is
            False, as in mmsegmentation and mmpretrain; a config of mmdetection, whose ResNets default to True, gets a
            warning.
        multi_grid: dilation of each block of the last stage, replacing its ``dilations`` entry.
        contract_dilation: halve the dilation of the first block of a dilated stage.
        with_cp: recompute blocks in the backward pass to save memory; batch norms then see each batch twice.
        zero_init_residual: initialize each block as the identity, by zeroing the scale of its last norm.
        drop_path_rate: stochastic depth: probability, in ``[0, 1)``, to drop the residual branch of an image in the
            last block while training; it grows linearly from 0 in the first block of the whole ResNet.
        dcn, plugins: not supported; anything but None raises.
        pretrained: older spelling of ``init_cfg=dict(type='Pretrained', checkpoint=pretrained)``.
        init_cfg: as in OpenMMLab. ``Pretrained`` raises if no key matches, or only a part of a block, instead of
            leaving the rest as initialized in silence; ``partial=True`` in it accepts that.

    Raises:
        ValueError: for an unknown depth, attention, scheme or out index (the message lists the valid ones), or if no
            scheme is recorded for this depth and attention (the message suggests ``scheme='full'``).

    Examples:
        >>> backbone = EANResNet(depth=18, attention='SGE', scheme='10-01-11-00')
        >>> [tuple(feature.shape) for feature in backbone(torch.zeros(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    family: ClassVar[str] = "imagenet"
    #: Height and width, in pixels, of the images that these networks are usually trained on.
    usual_size: ClassVar[int] = 224
    #: Image pixels between neighboring positions after the stem.
    stem_stride: int = 4
    depths: ClassVar[Mapping[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]]] = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    def __init__(
        self,
        depth: int = 50,
        attention: str | Mapping[str, Any] = "SE",
        scheme: Any = "ean",
        *,
        shared: bool = True,
        conv_bias: bool = False,
        in_channels: int = 3,
        stem_channels: int | None = 64,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: int | Sequence[int] | None = None,
        style: Style = "pytorch",
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        norm_eval: bool | None = None,
        multi_grid: Sequence[int] | None = None,
        contract_dilation: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        drop_path_rate: float = 0.0,
        dcn: None = None,
        stage_with_dcn: Sequence[bool] | None = None,
        plugins: None = None,
        pretrained: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(_with_pretrained(init_cfg, pretrained))
        self.init_cfg: Any
        if dcn is not None or any(stage_with_dcn or ()):
            raise ValueError(f"dcn={dcn!r}: {type(self).__name__} has no deformable convolutions; remove dcn")
        if plugins is not None:
            raise ValueError(f"plugins={plugins!r}: attention comes from attention=... and scheme=...; remove plugins")
        if depth not in self.depths:
            raise unknown_name("depth", depth, self.depths)
        block, stage_blocks = self.depths[depth]
        if not 1 <= num_stages <= len(stage_blocks):
            raise ValueError(f"num_stages of a ResNet-{depth} is 1 to {len(stage_blocks)}, got {num_stages}")
        if style not in ("pytorch", "caffe"):
            raise unknown_name("style", style, ("pytorch", "caffe"))
        if not -1 <= frozen_stages <= num_stages:
            raise ValueError(f"frozen_stages is -1 (none) to num_stages={num_stages}, got {frozen_stages}")
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate is a probability below 1, got {drop_path_rate}")
        scope = DefaultScope.get_current_instance()
        if norm_eval is None and scope is not None and scope.scope_name == "mmdet":
            _warn_of_norm_eval(type(self).__name__)

        self.depth = depth
        self.in_channels = in_channels
        self.stage_blocks = stage_blocks[:num_stages]
        self.strides = _per_stage("strides", strides, num_stages)
        self.dilations = _per_stage("dilations", dilations, num_stages)
        self.out_indices = _out_indices(out_indices, num_stages)
        self.frozen_stages = frozen_stages
        self.norm_eval = bool(norm_eval)
        self.with_cp = with_cp
        self.shared = shared

        layers = LayerFactory(conv_cfg, norm_cfg or {"type": "BN"}, conv_bias)
        channels = stem_channels or base_channels
        self._make_stem(in_channels, channels, layers, deep_stem)
        self.stage_channels: list[int] = []
        for k, n in enumerate(self.stage_blocks):
            stage = self._make_stage(
                block,
                n,
                channels,
                base_channels * 2**k,
                layers,
                stride=self.strides[k],
                dilations=_block_dilations(
                    n, self.dilations[k], multi_grid if k == num_stages - 1 else None, contract_dilation
                ),
                style=style,
                avg_down=avg_down,
            )
            channels = base_channels * 2**k * block.expansion
            self.stage_channels.append(channels)
            self.add_module(f"layer{k + 1}", stage)
        if drop_path_rate:
            self._add_drop_path(drop_path_rate, sum(stage_blocks))

        self.scheme: ConnectionScheme
        self.attention_cfg = self._attention_options(attention, block)
        first = self._resolve_scheme(scheme)
        for k, bits in enumerate(first.by_stage):
            owners: Sequence[Stage | ResidualBlock] = [self.stage(k)] if shared else self.stage(k).blocks
            for owner, used in zip(owners, [any(bits)] if shared else bits, strict=True):
                owner.attention = self._make_attention(k) if used else None
        self.set_scheme(first)
        self._reset_parameters(zero_init_residual)
        self._freeze()

    # ---------------------------------------------------------------- use

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of the stages in ``out_indices``, first stage first."""
        x = self.forward_stem(x)
        features = []
        for k in range(max(self.out_indices) + 1):
            x = self.stage(k)(x)
            if k in self.out_indices:
                features.append(x)
        return tuple(features)

    def set_scheme(self, scheme: Any) -> None:
        """Change the connections of an existing network, e.g. of a supernet that was built ``full``.

        A block that has never had a constant gate gets one with the value of a fresh module's gates. It keeps its
        values when the scheme changes again.

        Args:
            scheme: anything that :meth:`ConnectionScheme.parse` accepts.

        Raises:
            ValueError: if it does not fit the network's stages, connects a block that has no attention module, or has
                constant gates where the module's are not one per channel, or the scheme is read from the device.
        """
        scheme = ConnectionScheme.parse(scheme, self.stage_blocks)
        lacking = self._without_module(scheme)
        if lacking:
            raise ValueError(
                f"scheme {str(scheme)!r} connects blocks without an attention module ({', '.join(lacking)}): this "
                f"network was built for {str(self.scheme)!r}; build it with scheme='full' to use any scheme"
            )
        if scheme.constants:
            self._check_constants(scheme)
        self.scheme = scheme
        channels = [c for c, n in zip(self.stage_channels, self.stage_blocks, strict=True) for _ in range(n)]
        for block, mark, width in zip(self._unwrapped_blocks(), scheme.marks, channels, strict=True):
            block.connected, block.constant = mark == "1", mark == CONSTANT
            if block.constant and block.constant_gate is None:
                fresh = next(block.parameters()).new_full((width,), self._fresh_gate)
                block.constant_gate = nn.Parameter(fresh)
        for k, bits in enumerate(scheme.by_stage):
            own = self.stage(k).bits
            if own is not None:
                copy_over(torch.tensor(bits, dtype=own.dtype), own)

    def changed_settings(self) -> dict[str, Any]:
        """The current scheme, since ``'ean'`` may mean another one some day, and the stages that are returned."""
        return {"scheme": str(self.scheme), "out_indices": self.out_indices}

    def scheme_as_data(self, enabled: bool = True) -> None:
        """Keep the scheme in a tensor that training reads on the device, so that one CUDA graph serves all schemes.

        Every block then runs its attention, and an unconnected block uses a gate of 1 (Eqn 4 as written); gradients
        of :meth:`idle_parameters` are 0 instead of None. Call this once the network is on its device; every block
        needs an attention module.

        Raises:
            ValueError: if a block has no attention module, or a constant gate; the message names it.
        """
        if enabled and (lacking := self._without_module(ConnectionScheme.full(self.stage_blocks))):
            raise ValueError(
                "a scheme read from the device may connect any block, but there is no module for "
                f"{', '.join(lacking)}; build the network with scheme='full'"
            )
        if enabled and self.scheme.constants:
            raise ValueError(
                f"scheme {str(self.scheme)!r} has constant gates ({CONSTANT}), which cannot be read from the device; "
                "use a scheme of 0 and 1"
            )
        device = next(self.parameters()).device
        for k, bits in enumerate(self.scheme.by_stage):
            self.stage(k).bits = torch.tensor(bits, dtype=torch.float32, device=device) if enabled else None

    def forward_stem(self, x: Tensor) -> Tensor:
        """Return the input of the first stage, ``(N, stem_channels, H / 4, W / 4)``.

        Raises:
            ValueError: if ``x`` is not a batch of float images with ``in_channels`` channels.
        """
        check_images(x, self.in_channels, type(self).__name__)
        if hasattr(self, "stem"):
            return self.maxpool(self.stem(x))
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def stage(self, k: int) -> Stage:
        """Return stage ``k`` (0 for the first)."""
        return self.get_submodule(f"layer{k + 1}")

    def attention_at(self, k: int, i: int) -> Attention | None:
        """Return the attention module that the current scheme connects to block ``i`` of stage ``k``, or None."""
        return self.stage(k).attention_at(i)

    def attentions(self) -> dict[str, Attention]:
        """Return all attention modules by their names in the network, such as ``layer1.attention``."""
        return {name: module for name, module in self.named_modules() if isinstance(module, Attention)}

    def idle_parameters(self) -> set[nn.Parameter]:
        """Return the parameters of attention modules that the current scheme leaves unconnected, and of constant gates
        that it does not use."""
        used = {self.attention_at(k, i) for k, i, _ in self.blocks()}
        modules = {p for module in self.attentions().values() if module not in used for p in module.parameters()}
        gates = {b.constant_gate for _, _, b in self.blocks() if b.constant_gate is not None and not b.constant}
        return modules | gates

    def stages(self) -> list[list[Place]]:
        """Return the residual blocks by stage, each with its stage and index, for :func:`walk`."""
        return [[(k, i, block) for i, block in enumerate(self.stage(k))] for k in range(len(self.stage_blocks))]

    def blocks(self) -> Iterator[Place]:
        """Iterate over all residual blocks with their stage and index, in the order of the scheme's bits."""
        return chain.from_iterable(self.stages())

    def _unwrapped_blocks(self) -> list[ResidualBlock]:
        """The blocks, in order, without what activation checkpointing and FSDP put around them."""
        return [module for module in self.modules() if isinstance(module, ResidualBlock)]

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the returned feature maps."""
        return tuple(self.stage_channels[k] for k in self.out_indices)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Image pixels between neighboring positions of the returned feature maps."""
        return tuple(self.stem_stride * math.prod(self.strides[: k + 1]) for k in self.out_indices)

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, stride and module name of each stage's feature map, in timm's form.

        Examples:
            >>> EANResNet(18, scheme='none').feature_info[-1]
            {'num_chs': 512, 'reduction': 32, 'module': 'layer4'}
            >>> EANResNet(18, scheme='none', out_indices=(1, 2)).feature_info.channels()
            [128, 256]
        """
        entries = (
            {
                "num_chs": channels,
                "reduction": self.stem_stride * math.prod(self.strides[: k + 1]),
                "module": f"layer{k + 1}",
            }
            for k, channels in enumerate(self.stage_channels)
        )
        return FeatureInfo(entries, self.out_indices)

    @property
    def norm1(self) -> nn.Module:
        """The norm of a stem with one convolution, by OpenMMLab's name."""
        return self.bn1

    def compile_blocks(self, **options: Any) -> None:
        """Compile the forward pass of each block separately: its body, its attention, and the sum of its branches.

        Blocks of the same form share compiled code. The scheme is read outside that code, so a supernet does not
        recompile for a new scheme.

        Args:
            options: passed to ``torch.compile``.
        """
        run = _Compiled(run_block, compile_options(64, options))
        for block in self._unwrapped_blocks():
            block.run = run

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass to save memory, as ``with_cp`` does."""
        self.with_cp = enable
        for block in self._unwrapped_blocks():
            block.with_cp = enable

    def train(self, mode: bool = True) -> EANResNet:
        """Set training mode; frozen stages and, with ``norm_eval``, batch norms stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], *arguments: Any, **options: Any) -> None:
        rename(state_dict)
        super()._load_from_state_dict(state_dict, *arguments, **options)

    # ---------------------------------------------------------------- construction

    def _make_stem(self, in_channels: int, channels: int, layers: LayerFactory, deep: bool) -> None:
        if deep:
            half = channels // 2
            widths = [(in_channels, half, 2), (half, half, 1), (half, channels, 1)]
            parts = [
                part
                for a, b, stride in widths
                for part in (layers.conv(a, b, 3, stride=stride), layers.norm(b), nn.ReLU(inplace=True))
            ]
            self.stem = nn.Sequential(*parts)
        else:
            self.conv1 = layers.conv(in_channels, channels, 7, stride=2)
            self.bn1 = layers.norm(channels)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)

    def _make_stage(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        n: int,
        in_channels: int,
        channels: int,
        layers: LayerFactory,
        *,
        stride: int,
        dilations: Sequence[int],
        style: Style,
        avg_down: bool,
    ) -> Stage:
        out_channels = channels * block.expansion
        downsample = None
        if stride != 1 or in_channels != out_channels:
            parts: list[nn.Module] = []
            if avg_down:  # also at stride 1, where it is a no-op: mmseg's and mmdet's parameter names count it
                parts.append(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
            parts.append(layers.conv(in_channels, out_channels, 1, stride=1 if avg_down else stride))
            parts.append(layers.norm(out_channels))
            downsample = nn.Sequential(*parts)
        blocks = [
            block(
                in_channels if i == 0 else out_channels,
                channels,
                layers,
                stride=stride if i == 0 else 1,
                dilation=dilations[i],
                style=style,
                downsample=downsample if i == 0 else None,
            )
            for i in range(n)
        ]
        for each in blocks:
            each.with_cp = self.with_cp
        return Stage(blocks)

    def _add_drop_path(self, rate: float, depth: int) -> None:
        """Give the blocks rates that grow linearly over ``depth`` blocks, those of stages left out included."""
        from torchvision.ops import StochasticDepth  # slow to import

        for i, (_, _, block) in enumerate(self.blocks()):
            block.drop_path = StochasticDepth(rate * i / (depth - 1), "row") if i else None

    def _attention_options(
        self, attention: str | Mapping[str, Any], block: type[BasicBlock] | type[Bottleneck]
    ) -> dict[str, Any]:
        options = {"type": attention} if isinstance(attention, str) else dict(attention or {})
        if "type" not in options:
            raise ValueError(f"attention={attention!r} names no module; for example 'SE' or dict(type='SE')")
        attention_class(options["type"])
        return options

    def _make_attention(self, k: int) -> Attention:
        options = dict(self.attention_cfg)
        if window := options.get("window"):
            if not (isinstance(window, Sequence) and [type(side) for side in window] == [int, int] and min(window) > 0):
                raise ValueError(f"window must be height and width in pixels, got {window!r}; for example (256, 320)")
            stride = self.stem_stride * math.prod(self.strides[: k + 1])
            options["window"] = tuple(max(1, round(side / stride)) for side in window)
        return attention_class(options.pop("type"))(self.stage_channels[k], **options)

    @property
    def _fresh_gate(self) -> float:
        """The factor that a fresh module's gates have without an input: 1 with ``identity_start``."""
        kind = attention_class(self.attention_cfg["type"])
        return 1.0 if self.attention_cfg.get("identity_start") else kind.fresh_gate

    def _check_constants(self, scheme: ConnectionScheme) -> None:
        name = self.attention_cfg["type"]
        if not attention_class(name).per_channel:
            able = [each for each, kind in ATTENTION.module_dict.items() if kind.per_channel]
            raise ValueError(
                f"scheme {str(scheme)!r} has constant gates ({CONSTANT}), but the gates of {name} are not one per "
                f"channel, which a constant gate is; {' and '.join(able)} have such gates"
            )
        if any(self.stage(k).bits is not None for k in range(len(self.stage_blocks))):
            raise ValueError(
                f"scheme {str(scheme)!r} has constant gates ({CONSTANT}), but this network reads its scheme from the "
                "device (scheme_as_data), where a block is connected or not"
            )

    def _without_module(self, scheme: ConnectionScheme) -> list[str]:
        """Return the names of the attention modules that ``scheme`` uses and this network lacks."""
        names = []
        for (k, i, block), bit in zip(self.blocks(), scheme.bits, strict=True):
            if bit and (self.stage(k) if self.shared else block).attention is None:
                names.append(f"layer{k + 1}.attention" if self.shared else f"layer{k + 1}.{i}.attention")
        return list(dict.fromkeys(names))

    @classmethod
    def has_recorded(cls, depth: int, attention: str | Mapping[str, Any], data: str) -> bool:
        """Whether a scheme is on record that was found on this data set, other than the one that ``'ean'`` means on any
        data, the family's own."""
        name = attention if isinstance(attention, str) else attention.get("type", "")
        return data != FAMILY_DATA[cls.family] and (cls.family, depth, name, data) in RECORDED

    def _resolve_scheme(self, scheme: Any) -> ConnectionScheme:
        name = self.attention_cfg["type"]
        word, _, data = scheme.partition(":") if isinstance(scheme, str) else ("", "", "")
        if word == "ean" and data:
            find_dataset(data)  # raises if there is none of that key
        recorded = find_recorded(self.family, self.depth, name, data)
        if word != "ean":
            try:
                return ConnectionScheme.parse(scheme, self.stage_blocks)
            except ValueError as error:
                hint = "; scheme='ean' uses the recorded one" if recorded else ""
                raise ValueError(f"{error}{hint}") from None
        if recorded is None:
            keys = [key for key in RECORDED if key[0] == self.family]
            known = [f"{d} with {a}{'' if on == FAMILY_DATA[self.family] else f' on {on}'}" for _, d, a, on in keys]
            raise ValueError(
                f"no scheme is recorded for {type(self).__name__} depth {self.depth} with {name} (recorded: "
                f"{', '.join(known)}); use scheme='full', or find one with `ean search` and give it as text like "
                f"{str(ConnectionScheme.every(self.stage_blocks, 2))!r}"
            )
        if len(recorded.scheme.stages) < len(self.stage_blocks):
            raise ValueError(
                f"the scheme recorded on {recorded.data}, {recorded.scheme}, is for the first "
                f"{len(recorded.scheme.stages)} stages, but this network has {len(self.stage_blocks)}; use num_stages="
                f"{len(recorded.scheme.stages)} or scheme='full'"
            )
        _log_standing(type(self).__name__, self.depth, name, recorded, data)
        return recorded.scheme.leading(len(self.stage_blocks))

    def _reset_parameters(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if zero_init_residual:
            for _, _, block in self.blocks():
                if getattr(block.last_norm, "weight", None) is not None:
                    nn.init.zeros_(block.last_norm.weight)  # type: ignore[arg-type]

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen: list[nn.Module] = [self.stem] if hasattr(self, "stem") else [self.conv1, self.bn1]
        frozen += map(self.stage, range(self.frozen_stages))
        for module in frozen:
            module.eval()
            module.requires_grad_(False)


@MODELS.register_module()
class EANResNetCIFAR(EANResNet):
    """ResNet for 32x32 images (3x3 stem, three stages) with searched attention.

    Maps ``(N, in_channels, H, W)`` to feature maps at 1/1, 1/2 and 1/4 of the size by default. Depths 20, 56 and 110
    have basic blocks, 164 has bottlenecks; shortcuts are projections (1x1 convolution and norm) wherever the shape
    changes.

    Args:
        depth: 20, 56, 110 or 164.
        attention, scheme, shared, conv_bias, in_channels, out_indices, frozen_stages, conv_cfg, norm_cfg, norm_eval,
            with_cp, zero_init_residual, drop_path_rate, init_cfg: as for :class:`EANResNet`. An attention module given
            by name gets the options that suit these narrow networks (its ``cifar_options``).
        base_channels: width of the first stage.
        num_stages: 1 to 3.
        strides: stride of the first block of each stage.
        stem_stride: stride of the first convolution; 2 or more gives a light network for larger images.

    Examples:
        >>> backbone = EANResNetCIFAR(20, 'DIA', scheme='full')
        >>> [tuple(feature.shape) for feature in backbone(torch.zeros(1, 3, 32, 32))]
        [(1, 16, 32, 32), (1, 32, 16, 16), (1, 64, 8, 8)]
    """

    family = "cifar"
    usual_size = 32
    depths = {
        20: (BasicBlock, (3, 3, 3)),
        56: (BasicBlock, (9, 9, 9)),
        110: (BasicBlock, (18, 18, 18)),
        164: (Bottleneck, (18, 18, 18)),
    }

    def __init__(
        self,
        depth: int = 20,
        attention: str | Mapping[str, Any] = "SE",
        scheme: Any = "ean",
        *,
        shared: bool = True,
        conv_bias: bool = False,
        in_channels: int = 3,
        base_channels: int = 16,
        num_stages: int = 3,
        strides: Sequence[int] = (1, 2, 2),
        stem_stride: int = 1,
        out_indices: int | Sequence[int] | None = None,
        frozen_stages: int = -1,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        norm_eval: bool | None = None,
        with_cp: bool = False,
        zero_init_residual: bool = False,
        drop_path_rate: float = 0.0,
        init_cfg: Any = None,
    ) -> None:
        self.stem_stride = stem_stride  # needed by _make_stem
        super().__init__(
            depth,
            attention,
            scheme,
            shared=shared,
            conv_bias=conv_bias,
            in_channels=in_channels,
            stem_channels=base_channels,
            base_channels=base_channels,
            num_stages=num_stages,
            strides=strides,
            dilations=(1, 1, 1),
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            norm_eval=norm_eval,
            with_cp=with_cp,
            zero_init_residual=zero_init_residual,
            drop_path_rate=drop_path_rate,
            init_cfg=init_cfg,
        )

    def _make_stem(self, in_channels: int, channels: int, layers: LayerFactory, deep: bool) -> None:
        self.conv1 = layers.conv(in_channels, channels, 3, stride=self.stem_stride)
        self.bn1 = layers.norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()

    def _attention_options(
        self, attention: str | Mapping[str, Any], block: type[BasicBlock] | type[Bottleneck]
    ) -> dict[str, Any]:
        options = super()._attention_options(attention, block)
        fitting = attention_class(options["type"]).cifar_options["basic" if block is BasicBlock else "bottleneck"]
        return {**fitting, **options}


def walk(
    stages: Sequence[Iterable[Block]],
    x: Tensor,
    step: Callable[[Block, Tensor, State], tuple[Tensor, State]],
    out_indices: Container[int] | None = None,
    *,
    state: State = None,
) -> tuple[Tensor, ...]:
    """Pass feature maps through the blocks of a network; the attention state is reset at the start of each stage.

    Args:
        stages: blocks by stage, of any type that ``step`` accepts.
        x: input of the first block ``(N, C, H, W)``.
        step: maps a block, its input, and the state left by the block before it to the block's output and the new
            state.
        out_indices: indices into ``stages`` of the stages whose outputs are returned; the last one if None.
        state: attention state before the first block, for a walk that starts within a stage.

    Returns:
        Feature maps, first stage first.
    """
    if out_indices is None:
        out_indices = (len(stages) - 1,)
    features = []
    for k, blocks in enumerate(stages):
        for block in blocks:
            x, state = step(block, x, state)
        if k in out_indices:
            features.append(x)
        state = None
    return tuple(features)


def find_backbone(model: nn.Module) -> EANResNet:
    """Return the EAN backbone inside a model.

    Raises:
        ValueError: if there is none.
    """
    for module in model.modules():
        if isinstance(module, EANResNet):
            return module
    raise ValueError(f"{type(model).__name__} has no EANResNet or EANResNetCIFAR inside")


def describe(backbone: EANResNet) -> dict[str, str]:
    """Describe a network for the metadata of its files: class, depth, attention and connections.

    Options of the attention that no tensor shows are included where they are not the defaults.
    """
    return {
        "type": type(backbone).__name__,
        "depth": str(backbone.depth),
        "attention": str(backbone.attention_cfg["type"]),
        "scheme": str(backbone.scheme),
        "shared": str(backbone.shared),
        **{name: str(value) for name, value in untraced_options(backbone.attention_cfg).items()},
    }


def compile_options(variants: int, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return ``torch.compile`` options for code that runs on many kinds of blocks and shapes of feature maps.

    Each of them is compiled separately, and by default dynamo stops after a few versions of one function.

    Args:
        variants: number of versions to allow.
        options: further options, which take precedence.
    """
    options = {"dynamic": False, **(options or {})}
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        return {"recompile_limit": variants, **options}
    from torch._dynamo import config

    config.cache_size_limit = max(config.cache_size_limit, variants)
    return options


class _Compiled:
    """A compiled function that can be pickled: the copy compiles it again, when it is first called.

    Args:
        function: function of a module, which pickle stores by its name.
        options: for ``torch.compile``.
    """

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self.function, self.options = function, dict(options)

    @cached_property
    def compiled(self) -> Callable[..., Any]:
        return torch.compile(self.function, **self.options)

    def __call__(self, *arguments: Any) -> Any:
        return self.compiled(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Compiled, (self.function, self.options)


@cache
def _log_standing(network: str, depth: int, attention: str, recorded: RecordedScheme, data: str) -> None:
    instead = f"; none is recorded on {data}" if data not in ("", recorded.data) else ""
    print_log(
        f"{network}-{depth} with {attention}: scheme {recorded.scheme}, {recorded.standing} ({recorded.source}), on "
        f"{recorded.data}{instead}",
        logger="current",
    )


@cache
def _warn_of_norm_eval(network: str) -> None:
    print_log(
        f"{network}: this mmdetection config leaves norm_eval out. mmdetection's ResNets keep their batch norms in "
        "evaluation mode by default, this network does not; set norm_eval=True in the backbone for the same training, "
        "or norm_eval=False to keep this one without a warning",
        logger="current",
        level=logging.WARNING,
    )


def _with_pretrained(init_cfg: Any, pretrained: str | None) -> Any:
    if pretrained is None:
        return init_cfg
    if init_cfg is not None:
        raise ValueError(f"give init_cfg or pretrained, not both: init_cfg={init_cfg!r}, pretrained={pretrained!r}")
    warnings.warn(
        f"pretrained={pretrained!r} is the older spelling of init_cfg=dict(type='Pretrained', checkpoint=...)",
        DeprecationWarning,
        stacklevel=3,
    )
    return {"type": "Pretrained", "checkpoint": pretrained}


def _per_stage(name: str, values: Sequence[int], num_stages: int) -> tuple[int, ...]:
    if len(values) < num_stages:
        raise ValueError(f"{name}={tuple(values)} has fewer entries than the network's {num_stages} stages")
    return tuple(values[:num_stages])


def _out_indices(given: int | Sequence[int] | None, num_stages: int) -> tuple[int, ...]:
    if given is None:
        return tuple(range(num_stages))
    given = (given,) if isinstance(given, int) else given
    for index in given:
        if index not in range(-num_stages, num_stages):
            raise unknown_name(f"out index for {num_stages} stages", index, range(num_stages))
    if not given:
        raise ValueError(f"out_indices is empty; choose from {tuple(range(num_stages))}")
    return tuple(sorted({index % num_stages for index in given}))


def _block_dilations(
    n: int, dilation: int, multi_grid: Sequence[int] | None, contract_dilation: bool
) -> tuple[int, ...]:
    if multi_grid is not None:
        if len(multi_grid) != n:
            raise ValueError(
                f"multi_grid={tuple(multi_grid)} needs one dilation for each of the last stage's {n} blocks"
            )
        return tuple(multi_grid)
    first = dilation // 2 if contract_dilation and dilation > 1 else dilation
    return (first,) + (dilation,) * (n - 1)

"""Import third-party weights as EAN networks: (SE-)ResNets of other libraries, and the paper's authors' networks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from ean_core import ConnectionScheme, EANResNet
from ean_core.layers import Bottleneck
from ean_core.weights.addresses import BACKBONE
from ean_core.weights.files import read_state_dict
from ean_core.weights.names import translate, translated_names

#: PyTorch's usual ImageNet normalization, which both kinds of networks use, for images in the range 0 to 255.
IMAGENET = {"type": "ImagePreprocessor", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}

_BLOCK = re.compile(r"layer(\d)\.(\d+)\.")
_OWN = re.compile(r"layer\d\.\d+\.attention\.")
_SHARED = re.compile(r"(layer\d)\.(?:share_fc|lstm)\.(.+)")


@dataclass(frozen=True)
class Imported:
    """An imported network.

    Args:
        network: an :class:`ean_core.ImageClassifier` with its weights.
        settings: its config, for ``MODELS.build``.
        source: ``"the authors'"``, or ``'torchvision'`` for networks of libraries with its names.
        unused: source names of tensors that no connected block uses.
    """

    network: nn.Module
    settings: dict[str, Any]
    source: str
    unused: tuple[str, ...]


def import_weights(source: str | os.PathLike[str], scheme: str | None = None) -> Imported:
    """Import a checkpoint of a ResNet of another library, or of the authors' networks, as an EAN network.

    The kind is recognized by the tensor names: ResNet and SE-ResNet of torchvision, timm and mmpretrain, also with deep
    stems and pooled shortcuts (ResNet-C, ResNet-D). The authors' networks are those of
    https://github.com/gbup-group/EAN-efficient-attention-network: one module per stage, shared by its blocks, and a
    bias in every convolution.

    Args:
        source: a file, or an address such as ``torchvision://resnet50``. Nothing in it is executed.
        scheme: the connections; required if stages share their attention modules, as tensors then do not show them.

    Returns:
        The network, with outputs equal to the source's.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file has another kind or depth, or the scheme is missing or does not fit.
    """
    state = read_state_dict(source)
    if "layer1.ModuleList.0.conv1.weight" in state:
        kind, names = "the authors'", {name: _authors_name(name) for name in state}
    else:
        kind, names = "torchvision", _library_names(state)
        if not {f"{BACKBONE}layer1.0.conv1.weight", "fc.weight"} <= set(names.values()):
            raise ValueError(
                f"{source} is neither a torchvision ResNet nor one of the authors' networks: expected the keys "
                "layer1.0.conv1.weight and fc.weight, or layer1.ModuleList.0.conv1.weight; its first keys are "
                f"{', '.join(list(state)[:4])}. Checkpoints of this library need no import"
            )
    renamed = {new: state[old] for old, new in names.items()}
    depth = _depth(renamed, source)
    attention = _attention(renamed)
    connected = _connected(renamed, EANResNet.depths[depth][1])
    if attention is None:
        if scheme not in (None, "none"):
            raise ValueError(f"{source} has no attention modules; scheme {scheme!r} does not fit, leave it out")
        scheme = "none"
    elif connected.connections:
        if scheme is not None and ConnectionScheme.parse(scheme, connected.stages) != connected:
            raise ValueError(
                f"{source} has attention modules in the blocks of {connected}; scheme {scheme!r} does not fit, leave "
                "it out"
            )
        scheme = str(connected)
    elif scheme is None:
        raise ValueError(
            f"{source} has {attention['type']} modules, but its tensors do not say which blocks they connect to; give "
            f"--scheme: text such as {ConnectionScheme.every(EANResNet.depths[depth][1], 2)}, full, or ean for the one "
            "on record"
        )
    settings: dict[str, Any] = {
        "type": "ImageClassifier",
        "num_classes": len(renamed["fc.weight"]),
        "data_preprocessor": IMAGENET,
        "backbone": {
            "type": "EANResNet",
            "depth": depth,
            **({"attention": attention} if attention else {}),
            "scheme": scheme,
            **({"shared": False} if connected.connections else {}),
            **({"deep_stem": True} if f"{BACKBONE}stem.0.weight" in renamed else {}),
            **({"avg_down": True} if _pools_shortcuts(renamed) else {}),
            "conv_bias": f"{BACKBONE}conv1.bias" in renamed,
        },
    }
    network = MODELS.build(settings)
    settings["backbone"]["scheme"] = str(network.backbone.scheme)
    own = network.state_dict()
    renamed, _ = translate(renamed, own)
    # The authors use 1x1 convolutions as linear layers, and store group weights in the shape of a feature map.
    fitted = {name: value.reshape(own[name].shape) for name, value in renamed.items() if _fits(own.get(name), value)}
    lacking = [name for name in own if name not in fitted and not name.endswith("num_batches_tracked")]
    names_of = {new: old for old, new in names.items()}
    foreign = {new: names_of.get(new, new) for new in renamed if new not in fitted}
    unexpected = [old for new, old in foreign.items() if ".attention." not in new]
    other = [new for new, value in renamed.items() if new in own and new not in fitted]
    if other:
        raise ValueError(
            f"{source} is an unsupported kind of ResNet, for example with groups or wider blocks: "
            f"{names_of.get(other[0], other[0])} "
            f"has shape {tuple(renamed[other[0]].shape)}, in ResNet-{depth} {tuple(own[other[0]].shape)}"
        )
    if lacking or unexpected:
        raise ValueError(
            f"{source} does not fit a ResNet-{depth}: missing {', '.join(lacking[:4]) or 'nothing'}, unexpected "
            f"{', '.join(unexpected[:4]) or 'nothing'}"
        )
    network.load_state_dict(fitted, strict=False)
    return Imported(network, settings, kind, tuple(sorted(foreign.values())))


def _library_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Map tensor names of other libraries, which may have a prefix, to this package's names."""
    translated = translated_names(state)
    ending = "layer1.0.conv1.weight"
    prefix = next((new.removesuffix(ending) for new in translated.values() if new.endswith(ending)), "")

    def own(name: str) -> str:
        before, found, rest = name.rpartition("fc.")  # the linear layer, beside the backbone or in it
        if found and rest in ("weight", "bias") and prefix.startswith(before):
            return f"fc.{rest}"
        return BACKBONE + name.removeprefix(prefix)

    return {old: own(new) for old, new in translated.items()}


def _connected(state: Mapping[str, Tensor], stages: tuple[int, ...]) -> ConnectionScheme:
    """Return the blocks that have an attention module of their own, as a scheme."""
    found = {match[0] for name in state if (match := _OWN.search(name))}
    bits = [f"layer{k + 1}.{i}.attention." in found for k, n in enumerate(stages) for i in range(n)]
    return ConnectionScheme(stages, tuple(map(int, bits)))


def _pools_shortcuts(state: Mapping[str, Tensor]) -> bool:
    """Whether a pooling layer comes before the shortcuts' convolutions, as in ResNet-D."""
    second = state.get(f"{BACKBONE}layer2.0.downsample.1.weight")
    return second is not None and second.ndim == 4


def _authors_name(name: str) -> str:
    """Map a tensor name of the authors' networks to this package's name."""
    if name.startswith("last_linear."):
        return name.replace("last_linear", "fc")
    if match := _SHARED.fullmatch(name):
        # Their LSTM's transforms are lists of one layer each, a sequence of linear, ReLU, linear.
        inner = re.sub(r"^(w_[ih]h)\.0\.seq\.", r"\1.", match[2])
        return f"{BACKBONE}{match[1]}.attention.{inner}"
    return BACKBONE + name.replace(".ModuleList.", ".")


def _depth(state: Mapping[str, Tensor], source: object) -> int:
    places = {(int(match[1]), int(match[2])) for name in state if (match := _BLOCK.search(name))}
    blocks = tuple(sum(stage == k for stage, _ in places) for k in range(1, 5))
    bottleneck = f"{BACKBONE}layer1.0.conv3.weight" in state
    for depth, (block, stages) in EANResNet.depths.items():
        if stages == blocks and (block is Bottleneck) == bottleneck:
            return depth
    kind = "bottlenecks" if bottleneck else "basic blocks"
    raise ValueError(
        f"{source} has {blocks} {kind} in its stages, expected those of ResNet-{', '.join(map(str, EANResNet.depths))}"
    )


def _attention(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Infer the attention module and its options from the tensors."""
    shapes = {name: value.shape for name, value in state.items() if ".attention." in name}
    for name in shapes:
        tensor = name.partition(".attention.")[2]
        if tensor == "fc1.weight":
            return {"type": "SE", "reduction": _reduction(shapes, ".fc1.weight")}
        if tensor == "w_ih.0.weight":
            return {"type": "DIA", "reduction": _reduction(shapes, ".w_ih.0.weight")}
        if tensor == "weight":
            return {"type": "SGE", "groups": shapes[name].numel()}
    return None


def _reduction(shapes: Mapping[str, Any], ending: str) -> int:
    """Find the reduction that matches the hidden units of all stages, ``channels // reduction``."""
    sizes = [shape[:2] for name, shape in shapes.items() if name.endswith(ending)]
    usual = [16, 20, 4, 8, 32]
    for reduction in [*usual, *range(1, max(channels for _, channels in sizes) + 1)]:
        if all(max(1, channels // reduction) == hidden for hidden, channels in sizes):
            return reduction
    raise ValueError(f"no reduction maps channels {[c for _, c in sizes]} to hidden units {[h for h, _ in sizes]}")


def _fits(own: Tensor | None, value: Tensor) -> bool:
    """Whether a tensor has the shape of this package's tensor, ignoring dimensions of size one."""
    return own is not None and [n for n in own.shape if n > 1] == [n for n in value.shape if n > 1]

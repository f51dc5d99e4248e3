"""Translate parameter names and shapes of other ResNets, and of earlier versions, into those of today's networks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Mapping
from typing import Any

from torch import Tensor

#: An attention module in a dict of the backbone: ``attention.layer1.…``, or ``attention.layer1_0.…`` if not shared.
_EARLIER = re.compile(r"((?:(?!layer\d).)*?)\battention\.(layer\d+)(?:_(\d+))?\.")
#: Wrappers that insert their own name in front of a module's parameters: torch.compile, FSDP, activation checkpointing.
_WRAPPERS = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
#: OpenMMLab names norms by their type.
_NORM = re.compile(r"(?<![^.])(?:gn|in|ln)(\d)(?=\.)")
#: mmpretrain's deep stem: three modules of convolution, norm and ReLU.
_STEM = re.compile(r"(?<![^.])stem\.(\d)\.(conv|bn|gn|in)(?=\.)")
#: timm's deep stem: a Sequential named conv1, followed by bn1.
_TIMM_STEM = re.compile(r"(?<![^.])conv1\.(\d)(?=\.)")
_TIMM_STEM_NORM = re.compile(r"(?<![^.])bn1(?=\.)")
#: mmpretrain's linear head.
_HEAD = re.compile(r"(?<![^.])head\.(?=fc\.)")
#: Squeeze-and-excitation in a block: mmpretrain's, and timm's and torchvision's.
_SE = re.compile(r"(?<=\d\.)(?:se_layer\.conv(\d)\.conv|se\.fc(\d))(?=\.)")
_BLOCK = re.compile(r"(?:.*\.)?layer\d+\.\d+\.(?=\w)")
_DOWNSAMPLE = re.compile(r"(.*\.)?(layer\d+\.\d+\.downsample)\.(\d+)\.(.+)")
_FIRST_BLOCK = re.compile(r"(.*?)layer1\.0\.")


def current_name(name: str) -> str:
    """Return the name that a tensor of an earlier version has today: stages and blocks hold their attention modules.

    Examples:
        >>> current_name("backbone.attention.layer1.fc1.weight")
        'backbone.layer1.attention.fc1.weight'
        >>> current_name("attention.layer1_0.bias")
        'layer1.0.attention.bias'
        >>> current_name("layer1.0.attention.bias")
        'layer1.0.attention.bias'
    """
    match = _EARLIER.match(name)
    if match is None:
        return name
    owner = match[2] if match[3] is None else f"{match[2]}.{match[3]}"
    return f"{match[1]}{owner}.attention.{name[match.end() :]}"


def is_gate(name: str) -> bool:
    """Whether a tensor belongs to an attention module or is a constant gate.

    Examples:
        >>> is_gate("layer1.attention.fc1.weight"), is_gate("layer1.0.constant_gate"), is_gate("layer1.0.bn1.weight")
        (True, True, False)
    """
    return not {"attention", "constant_gate"}.isdisjoint(name.split("."))


def are_current(names: Iterable[str]) -> bool:
    """Whether no name is one of an earlier version."""
    return all(current_name(name) == name for name in names)


def rename(state: dict[str, Any]) -> None:
    """Give tensors of earlier versions their names of today, in place."""
    for name in [name for name in state if current_name(name) != name]:
        state[current_name(name)] = state.pop(name)


def translate(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Give the tensors of a file the names and shapes of a network's, as far as they are the same layers.

    Understands the names of torchvision, timm, mmsegmentation, mmdetection and mmpretrain (norms by type, deep stems,
    pooled shortcuts, SE in every block), wrappers, prefixes of any depth, and weights of a different number of image
    channels, which are adapted as in timm. A file that has all of the network's names keeps them.

    Args:
        state: tensors of the file by name.
        own: state dict of the network.

    Returns:
        The tensors by their new names, and a description of the prefix that was removed or added; empty if none.
    """
    today = {current_name(_WRAPPERS.sub("", name)): value for name, value in state.items()}
    named, prefix = _without_prefix(today, own)
    if own.keys() - named.keys():
        named = {new: state[name] for name, new in translated_names(state).items()}
        named, prefix = _without_prefix(named, own)
        named = _renumbered_shortcuts(named, own)
    return {name: _fitted(name, value, own.get(name)) for name, value in named.items()}, prefix


def translated_names(names: Collection[str]) -> dict[str, str]:
    """Map names of other ResNets to this package's, with their prefixes; layers of a shortcut keep their numbers."""
    deep = any(_TIMM_STEM.search(name) for name in names)
    return {name: _translated(name, deep) for name in names}


def _translated(name: str, timm_stem: bool) -> str:
    name = current_name(_WRAPPERS.sub("", name))
    if "attention" in name.split("."):  # this package's, in which custom modules choose their names
        return name
    name = _SE.sub(lambda match: f"attention.fc{match[1] or match[2]}", name)
    name = _STEM.sub(lambda match: f"stem.{3 * int(match[1]) + (match[2] != 'conv')}", name)
    if timm_stem:
        name = _TIMM_STEM.sub(r"stem.\1", name)
        if not _BLOCK.match(name):
            name = _TIMM_STEM_NORM.sub("stem.7", name)
    return _NORM.sub(r"bn\1", _HEAD.sub("", name))


def matching_prefixes(state: Iterable[str], own: Collection[str]) -> list[str]:
    """Return the prefix without which most names are the network's; several if they are equally good.

    Names of its backbone count with and without the backbone's own name.
    """
    return _prefixes(state, own)[0]


def _prefixes(state: Iterable[str], own: Collection[str]) -> tuple[list[str], str]:
    """Return the best prefixes, and the backbone's if the file has those of a backbone, but the network has more."""
    state, found = list(state), next(filter(None, map(_FIRST_BLOCK.match, own)), None)
    head = found[1] if found else ""
    whole, inner = _counts(state, own), _counts(state, {name.removeprefix(head) for name in own})
    most = max(whole.values(), default=0)
    if head and max(inner.values(), default=0) > most:
        return [prefix for prefix, count in inner.items() if count == max(inner.values())], head
    return [prefix for prefix, count in whole.items() if count == most], ""


def _counts(state: Iterable[str], own: Container[str]) -> Counter[str]:
    """Count the names that are the network's without a prefix, by prefix."""
    counts = Counter[str]()
    for name in state:
        parts = name.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in own:
                counts["".join(f"{part}." for part in parts[:i])] += 1
    return counts


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Replace the prefix of the file's names by that of the network's backbone, if these match most."""
    best, head = _prefixes(state, own)
    if len(best) != 1 or not (best[0] or head):
        return state, ""
    (prefix,) = best
    short = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    changes = [f"removed {prefix!r}" if prefix else "", f"added {head!r}" if head else ""]
    return {head + name if head + name in own else name: value for name, value in short.items()}, " and ".join(
        filter(None, changes)
    )


def _renumbered_shortcuts(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Number the layers of a shortcut as the network does, if either counts a pooling layer of stride 1.

    Where no shortcut of one of them pools, they are different networks, and the numbers stay as they are.
    """
    here, there = _shortcut_layers(own), _shortcut_layers(state)
    if _pools(here) != _pools(there):
        return state
    numbers = {
        (block, theirs): mine
        for block, layers in there.items()
        if len(layers) == len(here.get(block, ()))
        for theirs, mine in zip(sorted(layers), sorted(here[block]), strict=True)
    }

    def renumbered(name: str) -> str:
        match = _DOWNSAMPLE.fullmatch(name)
        if match is None:
            return name
        block = (match[1] or "") + match[2]
        return f"{block}.{numbers.get((block, int(match[3])), match[3])}.{match[4]}"

    return {renumbered(name): value for name, value in state.items()}


def _shortcut_layers(names: Iterable[str]) -> dict[str, set[int]]:
    """Return the numbers of the layers of each shortcut, by its name such as ``layer2.0.downsample``."""
    layers = defaultdict(set)
    for name in names:
        if match := _DOWNSAMPLE.fullmatch(name):
            layers[(match[1] or "") + match[2]].add(int(match[3]))
    return dict(layers)


def _pools(shortcuts: Mapping[str, set[int]]) -> bool:
    """Whether there is a layer without parameters before the convolution of any shortcut."""
    return any(min(layers) > 0 for layers in shortcuts.values())


def _fitted(name: str, value: Tensor, own: Tensor | None) -> Tensor:
    """Reshape a 1x1 convolution that is a linear layer here, and adapt the first convolution to the image channels."""
    if own is None or value.shape == own.shape:
        return value
    if ".attention." in f".{name}" and value.ndim == 4 and own.ndim == 2 and value.shape[:2] == own.shape:
        return value.flatten(1) if value.shape[2:] == (1, 1) else value
    first = name.endswith(("conv1.weight", "stem.0.weight")) and not _BLOCK.match(name)
    if first and value.ndim == 4 and value.shape[1] == 3 and own[:, 0].shape == value[:, 0].shape:
        return _adapted(value, own.shape[1])
    return value


def _adapted(weight: Tensor, channels: int) -> Tensor:
    """Adapt a convolution on RGB to another number of image channels, with outputs of about the same size.

    One channel gets the sum of the three, which is exact for gray images; several get them in turn, rescaled.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels]
    return repeated * (3 / channels)

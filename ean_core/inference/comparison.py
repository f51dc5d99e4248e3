"""Networks to compare: the variants of a config in several forms, timed side by side."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from ean_core.attention import attention_class
from ean_core.backbone import find_backbone
from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import read_record, write_record
from ean_core.runs.folder import Run, trained_config

from .cost import clock_notes, count_bytes, count_macs, peak_memory
from .deploy import deploy, fold
from .ops import plain_operators
from .timing import time_networks

#: Height and width in pixels; one number where they are the same.
Size = int | tuple[int, int]

#: What a network's connections are called in the paper's tables, and what makes them so; a config's own come last.
CONNECTIONS: dict[str, dict[str, Any]] = {
    "vanilla": {"scheme": "none"},
    "Org-full": {"scheme": "full", "shared": False},
    "Share-full": {"scheme": "full", "shared": True},
    "EAN": {},
}


class Form(str, Enum):
    """What is made of a network before it is timed."""

    eager = "eager"
    folded = "folded"
    deployed = "deployed"
    compiled = "compiled"
    captured = "captured"


@dataclass(frozen=True)
class Variant:
    """A network to time.

    Args:
        alike: what it has in common with the networks that it is compared with: all but its attention.
        connection: ``vanilla``, ``Org-full``, ``Share-full`` or ``EAN``.
        network: in evaluation mode.
        accuracy: of its test images, in percent.
        size: of its images; 224, or 32 for CIFAR networks, if None.
    """

    alike: str
    connection: str
    network: nn.Module
    accuracy: float | None = None
    size: Size | None = None

    @property
    def attention(self) -> str:
        """Name of its module."""
        return find_backbone(self.network).attention_cfg["type"]


@dataclass(frozen=True)
class Candidate:
    """A network in the form in which it is timed.

    Args:
        name: in the table.
        source: the network that it was made of.
        form: how.
        network: in that form.
        baseline: name of the network that its increment compares with.
        accuracy: in percent.
    """

    name: str
    source: nn.Module
    form: Form
    network: nn.Module
    baseline: str
    accuracy: float | None = None


def variants(config: Config) -> list[Variant]:
    """Vanilla, Org-full, Share-full and, if it is another, the config's own scheme, as in Table 1.

    A module that walks over the blocks of a stage, as DIA does, has no Org-full form.
    """
    names = [name for name in CONNECTIONS if name != "Org-full" or not attention_class(_attention(config)).recurrent]
    found = [variant(config, name) for name in names]
    return [each for each in found if each.connection == connection(each.network)]


def variant(config: Config, name: str) -> Variant:
    """The network of a config with other connections, one of :data:`CONNECTIONS`; ``EAN`` leaves it its own."""
    settings = config.model.copy()
    settings.backbone = settings.backbone.copy()
    settings.backbone.update(CONNECTIONS[name])
    return Variant(_alike(config), name, MODELS.build(settings).eval(), size=image_size(config))


def image_size(config: Config) -> Size | None:
    """The size of a config's images, if it says so."""
    size = config.get("image_size")
    return tuple(size) if isinstance(size, (list, tuple)) else size


def trained_variant(folder: Path) -> tuple[Config, Variant]:
    """The network of a run, with its test accuracy if it was measured.

    Raises:
        FileNotFoundError: if there is no checkpoint of a run in the folder.
    """
    run = Run(folder)
    config = None if run.latest is None else trained_config(run.latest)
    if config is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint of a training run")
    import_modules_from_strings(**config.get("custom_imports", {"imports": None}))
    accuracy = run.test["metrics"].get("accuracy/top1") if run.test else None
    network = MODELS.build(config.model).eval()
    return config, Variant(_alike(config), connection(network), network, accuracy, image_size(config))


def connection(network: nn.Module) -> str:
    """What the paper's tables call a network: vanilla, Org-full, Share-full or EAN."""
    backbone = find_backbone(network)
    if not backbone.scheme.connections:
        return "vanilla"
    if backbone.scheme.sparsity:
        return "EAN"
    return "Share-full" if backbone.shared else "Org-full"


def candidates(
    networks: Sequence[Variant],
    forms: Sequence[Form] = (Form.eager,),
    *,
    baseline: str = "vanilla",
    dtype: torch.dtype = torch.float32,
    device: str | None = None,
) -> list[Candidate]:
    """Networks in forms, each with the baseline of its own form, so that an increment is that of attention alone.

    Args:
        networks: to compare.
        forms: in which.
        baseline: the connection that increments compare with.
        dtype: of weights and feature maps.
        device: where to; a GPU if there is one by default.

    Raises:
        ValueError: if a network has no baseline among the others, or two of them would have one name.
    """
    plain = Counter((v.alike, v.connection, v.attention) for v in networks if v.connection != "vanilla")
    groups = list(dict.fromkeys(variant.alike for variant in networks))
    attentions = {variant.attention for variant in networks if variant.connection != "vanilla"}

    def label(variant: Variant, form: Form) -> str:
        words = [f"network {groups.index(variant.alike) + 1}"] * (len(groups) > 1)
        words += [variant.attention] * (len(attentions) > 1 and variant.connection != "vanilla")
        words += [variant.connection]
        if plain[variant.alike, variant.connection, variant.attention] > 1:
            words += [str(find_backbone(variant.network).scheme)]
        return " ".join(words) + f", {form.value}" * (len(forms) > 1)

    found: dict[str, Candidate] = {}
    for form in forms:
        for variant in networks:
            same = [v for v in networks if v.alike == variant.alike and v.connection == baseline]
            bases = [v for v in same if v.attention == variant.attention] or same
            if not bases:
                names = ", ".join(dict.fromkeys(v.connection for v in networks))
                raise ValueError(f"the baseline {baseline!r} is not among the networks: {names}")
            name = label(variant, form)
            if name in found and variant.connection == "vanilla":  # one for all attentions
                continue
            if name in found:
                raise ValueError(f"two networks are both {name}; time them separately, or leave one out")
            network = in_form(variant.network, form, dtype, device)
            found[name] = Candidate(name, variant.network, form, network, label(bases[0], form), variant.accuracy)
    return list(found.values())


def in_form(network: nn.Module, form: Form, dtype: torch.dtype = torch.float32, device: str | None = None) -> nn.Module:
    """A network as it is timed, on the device: as it is, or a copy made for inference."""
    if form is Form.captured and not str(device or get_device()).startswith("cuda"):
        raise ValueError("--form captured records CUDA graphs, which needs a GPU; the others run here")
    if form is Form.eager:
        made = copy.deepcopy(network).to(dtype)
    else:
        make = fold if form is Form.folded else deploy
        options = {"compile": True} if form is Form.compiled else {"cuda_graphs": True} if form is Form.captured else {}
        made = make(network, dtype=dtype, **options)
    return made.to(device or get_device())


def record_timing(
    path: Path,
    compared: Sequence[Candidate],
    *,
    batch: int,
    shape: tuple[int, Size],
    rounds: int,
    dtype: torch.dtype = torch.float32,
) -> Mapping[str, Any]:
    """Time networks side by side and write what was measured.

    Args:
        path: of the record.
        compared: on the device.
        batch: images a forward pass.
        shape: channels and size of the images.
        rounds: forward passes of each network that are counted.
        dtype: of the images.

    Returns:
        The record, whose ``networks`` are ready for :meth:`NetworkRow.of_record`.
    """
    device = next(compared[0].network.parameters()).device
    inputs = random_images(batch, shape, dtype, device)
    costs = [_costs(candidate, inputs, dtype) for candidate in compared]
    clock = clock_notes(inputs.device)
    timings = time_networks(
        {candidate.name: candidate.network for candidate in compared},
        inputs,
        baseline={candidate.name: candidate.baseline for candidate in compared},
        rounds=rounds,
    )
    measured = {
        c.name: {
            "scheme": str(find_backbone(c.source).scheme),
            "attention": find_backbone(c.source).attention_cfg["type"],
            "form": c.form.value,
            "parameters": sum(parameter.numel() for parameter in c.source.parameters()),
            "accuracy": c.accuracy,
            **cost,
            **timings[c.name].to_dict(),
        }
        for c, cost in zip(compared, costs, strict=True)
    }
    settings = timing_settings(inputs, rounds=rounds, clock={"before": clock, "after": clock_notes(inputs.device)})
    return read_record(write_record(path, kind="timing", **settings, networks=measured))


def increments_over_vanilla(
    config: Config, own: Variant, path: Path, rounds: int
) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """Increments of a config's network over the vanilla one, eager and deployed, timed side by side image by image.

    Args:
        config: whose ``image_size`` the random images have.
        own: its network.
        path: of the timing record.
        rounds: forward passes of each network.

    Returns:
        Increment and 95 % interval by form; empty for a vanilla network.
    """
    if connection(own.network) == "vanilla":
        return {}
    networks = [variant(config, "vanilla"), own]
    compared = candidates(networks, [Form.eager, Form.deployed])
    record = record_timing(path, compared, batch=1, shape=image_shape(networks), rounds=rounds)
    own_scheme = str(find_backbone(own.network).scheme)
    return {
        row["form"]: (row["increment"], row["increment_interval"])
        for row in record["networks"].values()
        if row["scheme"] == own_scheme
    }


def _costs(candidate: Candidate, inputs: Tensor, dtype: torch.dtype) -> dict[str, int | None]:
    """Operations and bytes an image, and memory, of the operators that a network consists of.

    What a compiled or captured network does is that of the deployed one, but the memory of it is not known.
    """
    network, special = candidate.network, candidate.form in (Form.compiled, Form.captured)
    if special:
        network = in_form(candidate.source, Form.deployed, dtype, str(inputs.device))
    with plain_operators():
        counts = {"macs": count_macs(network, inputs), "bytes": count_bytes(network, inputs)}
    return {**counts, "peak_memory": None if special else peak_memory(network, inputs)}


def image_shape(networks: Sequence[Variant], size: Size | None = None) -> tuple[int, Size]:
    """Channels and size of images that all of these networks take.

    Args:
        networks: to compare.
        size: in place of their own.

    Raises:
        ValueError: if their images differ.
    """
    shapes = set()
    for variant in networks:
        backbone = find_backbone(variant.network)
        shapes.add((backbone.in_channels, size or variant.size or backbone.usual_size))
    if len(shapes) > 1:
        raise ValueError(
            f"these networks take different images (channels, size): {sorted(shapes, key=_shape_order)}; "
            "time them separately, or give --size where only the size differs"
        )
    return shapes.pop()


def _shape_order(shape: tuple[int, Size]) -> tuple[int, ...]:
    channels, size = shape
    return (channels, *size) if isinstance(size, tuple) else (channels, size, size)


def random_images(batch: int, shape: tuple[int, Size], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Normalised images ``(N, C, H, W)`` in channels-last order."""
    channels, size = shape
    height, width = size if isinstance(size, tuple) else (size, size)
    images = torch.randn(batch, channels, height, width, device=device, dtype=dtype)
    return images.contiguous(memory_format=torch.channels_last)


def timing_settings(inputs: Tensor, **more: Any) -> dict[str, Any]:
    """How networks were timed."""
    batch, channels, height, width = inputs.shape
    size = height if height == width else [height, width]
    dtype = str(inputs.dtype).removeprefix("torch.")
    place = {"device": str(inputs.device), "freed_memory": "kept" if keep_freed_memory() else "returned"}
    return {"batch": batch, "channels": channels, "size": size, "dtype": dtype, **place, **more}


def _attention(config: Config) -> str:
    attention = config.model.backbone.get("attention", "SE")
    return attention if isinstance(attention, str) else attention["type"]


def _alike(config: Config) -> str:
    """The model's settings but for attention and connections."""
    settings = copy.deepcopy(config.model.to_dict())
    for name in ("attention", "scheme", "shared"):
        settings["backbone"].pop(name, None)
    return json.dumps(settings, sort_keys=True, default=str)

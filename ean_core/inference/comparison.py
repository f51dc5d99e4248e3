"""Compare networks: the variants of a config in several forms, timed side by side."""

from __future__ import annotations

import copy
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from ean_core.attention import ATTENTION, attention_class
from ean_core.backbone import find_backbone
from ean_core.common.choices import Form
from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import read_record, write_record
from ean_core.layers import NORMS
from ean_core.runs.folder import Run, trained_config
from ean_core.weights.files import WeightsFile
from ean_core.weights.loading import check_fit

from .cost import clock_notes, count_bytes, count_macs, peak_memory
from .deploy import deploy, fold
from .ops import plain_operators
from .timing import time_networks

logger = logging.getLogger(__name__)
#: Height and width in pixels; one number if they are equal.
Size = int | tuple[int, int]

#: Names of connections in the paper's tables, and the backbone settings for each; a config's own come last.
CONNECTIONS: dict[str, dict[str, Any]] = {
    "vanilla": {"scheme": "none"},
    "Org-full": {"scheme": "full", "shared": False},
    "Share-full": {"scheme": "full", "shared": True},
    "EAN": {},
    "Folded": {},
}


@dataclass(frozen=True)
class Variant:
    """A network to time.

    Args:
        alike: key of the settings that compared networks share: all but attention and connections.
        connection: ``vanilla``, ``Org-full``, ``Share-full``, ``EAN`` or ``Folded``.
        network: network in evaluation mode.
        accuracy: accuracy on its test images, in percent.
        size: size of its images; 224, or 32 for CIFAR networks, if None.
    """

    alike: str
    connection: str
    network: nn.Module
    accuracy: float | None = None
    size: Size | None = None

    @property
    def attention(self) -> str:
        """Name of its attention module."""
        return find_backbone(self.network).attention_cfg["type"]


@dataclass(frozen=True)
class Candidate:
    """A network in the form in which it is timed.

    Args:
        name: name in the table.
        source: the original network.
        form: form in which it is timed.
        network: network in that form.
        baseline: name of the network that its increment is relative to.
        accuracy: accuracy in percent.
    """

    name: str
    source: nn.Module
    form: Form
    network: nn.Module
    baseline: str
    accuracy: float | None = None


def variants(config: Config) -> list[Variant]:
    """Build vanilla, Org-full, Share-full and, if different, the config's own scheme, as in Table 1.

    A module that is recurrent over the blocks of a stage, like DIA, has no Org-full form.
    """
    names = [name for name in CONNECTIONS if name != "Org-full" or not attention_class(_attention(config)).recurrent]
    found = [variant(config, name) for name in names]
    return [each for each in found if each.connection == connection(each.network)]


def variant(config: Config, name: str) -> Variant:
    """Build the network of a config with connections from :data:`CONNECTIONS`; ``EAN`` and ``Folded`` keep its own."""
    settings = config.model.copy()
    settings.backbone = settings.backbone.copy()
    settings.backbone.update(CONNECTIONS[name])
    return Variant(_alike(config), name, MODELS.build(settings).eval(), size=image_size(config))


def image_size(config: Config) -> Size | None:
    """Return the size of a config's images; None if it does not specify one."""
    size = config.get("image_size")
    return tuple(size) if isinstance(size, (list, tuple)) else size


def trained_variant(folder: Path) -> tuple[Config, Variant]:
    """Build the network of a run, with its test accuracy if it was measured. Its weights are not loaded.

    Modules that the run's settings name under ``custom_imports`` are imported, with a warning if they are not ours.

    Raises:
        FileNotFoundError: if the folder has no checkpoint of a run.
        ValueError: if the network has a type that is not registered, or its weights do not fit.
    """
    run = Run(folder)
    latest = None if run.latest is None else WeightsFile(run.latest)
    config = None if latest is None else trained_config(latest)
    if latest is None or config is None:
        raise FileNotFoundError(f"{folder} has no checkpoint of a training run")
    custom = config.get("custom_imports") or {"imports": None}
    imports = custom["imports"] or []
    foreign = [
        name
        for name in ([imports] if isinstance(imports, str) else imports)
        if str(name).partition(".")[0] not in ("ean_core", "tasks")
    ]
    if foreign:
        logger.warning("importing %s, which the settings of %s name", ", ".join(map(str, foreign)), folder)
    import_modules_from_strings(**custom)
    _check_types(config.model, folder)
    check_fit(lambda: MODELS.build(copy.deepcopy(config.model)), latest)
    accuracy = run.test["metrics"].get("accuracy/top1") if run.test else None
    network = MODELS.build(config.model).eval()
    return config, Variant(_alike(config), connection(network), network, accuracy, image_size(config))


def _check_types(settings: object, folder: Path) -> None:
    """Refuse types that are not registered: mmengine would import and call whatever function they name.

    Raises:
        ValueError: if there is one.
    """
    if isinstance(settings, Mapping):
        if "_scope_" in settings:  # the registry would import the package of this name
            raise ValueError(f"the settings of {folder} have a _scope_; time the run's config if you trust it")
        kind = settings.get("type", "Conv2d")
        if not isinstance(kind, str) or kind not in _registered_types():
            raise ValueError(
                f"the settings of {folder} have the type {kind!r}, which is not registered; import its "
                "module with custom_imports, or time the run's config if you trust it"
            )
        settings = [*settings.values()]
    if isinstance(settings, (list, tuple)):
        for value in settings:
            _check_types(value, folder)


def _registered_types() -> set[object]:
    """Return the names of mmengine's registries and of those below them, with and without scope, and of layers."""
    roots = [one for one in vars(registry).values() if isinstance(one, registry.Registry)]
    below = [child for root in roots for child in root.children.values()]
    found = [(one.scope, name) for one in (ATTENTION, *roots, *below) for name in one.module_dict]
    return {"Conv2d", *NORMS, *(name for _, name in found), *(f"{scope}.{name}" for scope, name in found)}


def connection(network: nn.Module) -> str:
    """Return the name of a network in the paper's tables: vanilla, Org-full, Share-full or EAN; or Folded, if some of
    its gates are constant."""
    backbone = find_backbone(network)
    if not backbone.scheme.gates:
        return "vanilla"
    if backbone.scheme.constants:
        return "Folded"
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
    """Convert networks to each form, with a baseline in the same form so that increments measure attention alone.

    Args:
        networks: networks to compare.
        forms: forms to convert them to.
        baseline: connections of the baseline.
        dtype: type of weights and feature maps.
        device: target device; by default a GPU if there is one.

    Raises:
        ValueError: if a network has no baseline among the others, or two of them would have the same name.
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
            if name in found and variant.connection == "vanilla":  # shared by all attention modules
                continue
            if name in found:
                raise ValueError(f"two networks are both {name}; time them separately, or drop one")
            network = in_form(variant.network, form, dtype, device)
            found[name] = Candidate(name, variant.network, form, network, label(bases[0], form), variant.accuracy)
    return list(found.values())


def in_form(network: nn.Module, form: Form, dtype: torch.dtype = torch.float32, device: str | None = None) -> nn.Module:
    """Copy a network to the device in the form in which it is timed."""
    if form is Form.captured and not str(device or get_device()).startswith("cuda"):
        raise ValueError("--form captured uses CUDA graphs, which need a GPU; the other forms run here")
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
    """Time networks side by side and write a record of the measurements.

    Args:
        path: path of the record.
        compared: networks, on the device.
        batch: images per forward pass.
        shape: channels and size of the images.
        rounds: timed forward passes per network.
        dtype: type of the images.

    Returns:
        The record; :meth:`NetworkRow.of_record` reads its ``networks``.
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
    """Measure the increments of a config's network over the vanilla one, eager and deployed, at batch size 1.

    Args:
        config: config of the network; its ``image_size`` is that of the random images.
        own: its network.
        path: path of the timing record.
        rounds: timed forward passes per network.

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
    """Count the operations and bytes per image and the memory of a network's operators.

    A compiled or captured network has the counts of the deployed one; its memory is unknown.
    """
    network, special = candidate.network, candidate.form in (Form.compiled, Form.captured)
    if special:
        network = in_form(candidate.source, Form.deployed, dtype, str(inputs.device))
    with plain_operators():
        counts = {"macs": count_macs(network, inputs), "bytes": count_bytes(network, inputs)}
    return {**counts, "peak_memory": None if special else peak_memory(network, inputs)}


def image_shape(networks: Sequence[Variant], size: Size | None = None) -> tuple[int, Size]:
    """Return the channels and size of images that all of these networks take.

    Args:
        networks: networks to compare.
        size: size to use instead of their own.

    Raises:
        ValueError: if the networks take different images.
    """
    shapes = set()
    for variant in networks:
        backbone = find_backbone(variant.network)
        shapes.add((backbone.in_channels, size or variant.size or backbone.usual_size))
    if len(shapes) > 1:
        raise ValueError(
            f"these networks take different images (channels, size): {sorted(shapes, key=_shape_order)}; "
            "time them separately, or give --size if only the size differs"
        )
    return shapes.pop()


def _shape_order(shape: tuple[int, Size]) -> tuple[int, ...]:
    channels, size = shape
    return (channels, *size) if isinstance(size, tuple) else (channels, size, size)


def random_images(batch: int, shape: tuple[int, Size], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Return random normalized images ``(N, C, H, W)`` in channels-last format."""
    channels, size = shape
    height, width = size if isinstance(size, tuple) else (size, size)
    images = torch.randn(batch, channels, height, width, device=device, dtype=dtype)
    return images.contiguous(memory_format=torch.channels_last)


def timing_settings(inputs: Tensor, **more: Any) -> dict[str, Any]:
    """Return the settings of a timing, for its record."""
    batch, channels, height, width = inputs.shape
    size = height if height == width else [height, width]
    dtype = str(inputs.dtype).removeprefix("torch.")
    place = {"device": str(inputs.device), "freed_memory": "kept" if keep_freed_memory() else "returned"}
    return {"batch": batch, "channels": channels, "size": size, "dtype": dtype, **place, **more}


def _attention(config: Config) -> str:
    attention = config.model.backbone.get("attention", "SE")
    return attention if isinstance(attention, str) else attention["type"]


def _alike(config: Config) -> str:
    """Return the model's settings except for attention and connections, as text."""
    settings = copy.deepcopy(config.model.to_dict())
    for name in ("attention", "scheme", "shared"):
        settings["backbone"].pop(name, None)
    return json.dumps(settings, sort_keys=True, default=str)

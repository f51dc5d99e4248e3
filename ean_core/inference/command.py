"""The command ``ean time``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS
from torch import nn

from ean_core.config import load_config
from ean_core.options import CfgOptions
from ean_core.record import read_record, write_record
from ean_core.report.table import NetworkRow, print_table
from ean_core.supernet import find_backbone

from .timing import time_networks

#: Height and width in pixels where no --size is given, by the stem of the backbone.
DEFAULT_SIZE = {"imagenet": 224, "cifar": 32}


def variants(config: Config) -> dict[str, nn.Module]:
    """Vanilla, Share-full and, if it is another, the config's own scheme, in evaluation mode on the device."""
    networks: dict[str, nn.Module] = {}
    for name, scheme in (("vanilla", "none"), ("Share-full", "full"), ("EAN", None)):
        settings = config.model.copy()
        settings.backbone = settings.backbone.copy()
        if scheme is not None:
            settings.backbone.scheme = scheme
        network = MODELS.build(settings).eval().to(get_device())
        connected = find_backbone(network).scheme
        if scheme is not None or 0 < connected.connections < len(connected.bits):
            networks[name] = network
    return networks


def record_timing(
    path: Path, networks: Mapping[str, nn.Module], *, batch: int, size: int | None = None, rounds: int
) -> Mapping[str, Any]:
    """Time networks side by side, the first of them being the baseline, and write what was measured.

    Args:
        path: of the record.
        networks: by name, each with an EAN backbone inside, in evaluation mode on the device.
        batch: images a forward pass.
        size: height and width in pixels; 224, or 32 for CIFAR networks, if None.
        rounds: forward passes of each network that are counted.

    Returns:
        The record, whose ``networks`` are ready for :meth:`NetworkRow.of_record`.

    Raises:
        ValueError: if the networks do not take the same images.
    """
    backbones = {name: find_backbone(network) for name, network in networks.items()}
    shapes = {(backbone.in_channels, size or DEFAULT_SIZE[backbone.family]) for backbone in backbones.values()}
    if len(shapes) > 1:
        raise ValueError(
            f"these networks take different images (channels, size): {sorted(shapes)}; time them separately, or give "
            "--size where only the size differs"
        )
    channels, pixels = shapes.pop()
    inputs = torch.randn(batch, channels, pixels, pixels, device=get_device())
    timings = time_networks(networks, inputs, baseline=next(iter(networks)), rounds=rounds)
    measured = {
        name: {
            "scheme": str(backbones[name].scheme),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            **timings[name].to_dict(),
        }
        for name, network in networks.items()
    }
    settings = {"batch": batch, "channels": channels, "size": pixels, "rounds": rounds, "device": str(inputs.device)}
    return read_record(write_record(path, kind="timing", **settings, networks=measured))


def _all_variants(configs: Sequence[Config]) -> dict[str, nn.Module]:
    return {
        (name if len(configs) == 1 else f"{Path(config.filename).stem} {name}"): network
        for config in configs
        for name, network in variants(config).items()
    }


def time(
    configs: Annotated[list[str], typer.Argument(help="Config files or names of packaged configs.")],
    batch: Annotated[int, typer.Option(help="Images a forward pass; the paper has 50.", min=1)] = 50,
    size: Annotated[
        int | None, typer.Option(help="Height and width, pixels; 224, or 32 for CIFAR networks.", min=1)
    ] = None,
    rounds: Annotated[int, typer.Option(help="Forward passes of each network that are counted.", min=2)] = 50,
    threads: Annotated[int | None, typer.Option(help="CPU threads; PyTorch's choice if not given.", min=1)] = None,
    out: Annotated[Path, typer.Option(help="Record to write, JSON.")] = Path("work_dirs") / "timing.json",
    cfg_options: CfgOptions = None,
) -> None:
    """Time vanilla, Share-full and EAN networks side by side (Eqn 9)."""
    if threads:
        torch.set_num_threads(threads)
    networks = _all_variants([load_config(config, cfg_options or ()) for config in configs])
    record = record_timing(out, networks, batch=batch, size=size, rounds=rounds)
    rows = [NetworkRow.of_record(name, measured) for name, measured in record["networks"].items()]
    print_table(rows, title=f"inference, batch {batch} at {record['size']} pixels, {torch.get_num_threads()} threads")
    typer.echo(f"record: {out}")

"""The command ``ean time``."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import typer
from mmengine.device import get_device
from torch import nn

from ean_core.backbone import find_backbone
from ean_core.common.choices import Form
from ean_core.common.record import csv_text, write_record, write_text
from ean_core.common.writing import check_folder
from ean_core.inference.comparison import (
    Size,
    Variant,
    candidates,
    image_shape,
    random_images,
    record_timing,
    timing_settings,
    trained_variant,
    variant,
    variants,
)
from ean_core.inference.cost import clock_notes, disturbance
from ean_core.inference.latency import BlockProfile, profile_blocks
from ean_core.runs.folder import TEST, TIMING, Run
from ean_core.scheme import ConnectionScheme
from ean_core.show.figures import increment_figure, trade_figure
from ean_core.show.table import NetworkRow, in_percent, print_table, size_text

from .options import Precision, Protocol, checked_config


def time_per_block(
    network: nn.Module,
    forms: Sequence[Form],
    path: Path,
    *,
    batch: int,
    shape: tuple[int, Size],
    rounds: int,
    dtype: torch.dtype = torch.float32,
    device: str | None = None,
) -> dict[str, tuple[BlockProfile, Path]]:
    """Time the cost of each connection of a network, and write one table of block times per form.

    Args:
        network: network with the connections to time.
        forms: eager, deployed or both.
        path: path of the records; ``_blocks_FORM`` is added to the name.
        batch: images per forward pass.
        shape: channels and size of the images.
        rounds: number of timed forward passes.
        dtype: type of weights and feature maps.
        device: target device; by default a GPU if there is one.

    Returns:
        Profile and file, by form.

    Raises:
        ValueError: for any other form.
    """
    wrong = [form.value for form in forms if form not in (Form.eager, Form.deployed)]
    if wrong:
        raise ValueError(f"--per-block times eager or deployed networks, got --form {wrong[0]}")
    device = device or get_device()
    network = copy.deepcopy(network).to(device, dtype)
    inputs = random_images(batch, shape, dtype, device)
    head = getattr(network, "head", None)
    profiles = {}
    for form in forms:
        deployed = form is Form.deployed
        profile = profile_blocks(find_backbone(network), inputs, head, deployed=deployed, rounds=rounds)
        file = path.with_name(f"{path.stem}_blocks_{form.value}.json")
        settings = timing_settings(inputs, rounds=rounds, clock=clock_notes(inputs.device))
        backbone = find_backbone(network)
        whose = {"network": f"{type(backbone).__name__}-{backbone.depth}", "attention": backbone.attention_cfg["type"]}
        write_record(file, kind="block times", **profile.to_dict(), **whose, **settings)
        profiles[form.value] = (profile, file)
    return profiles


def time(
    networks: list[str],
    batch: int,
    size: str | None,
    form: list[Form] | None,
    baseline: str,
    dtype: Precision,
    device: str | None,
    threads: int | None,
    protocol: Protocol,
    rounds: int | None,
    per_block: bool,
    out: Path | None,
    cfg_options: list[str] | None,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    if threads:
        torch.set_num_threads(threads)
    out = out or _default_out(networks)
    if out.suffix != ".json":
        raise ValueError(f"--out must be a JSON file, got {out.name}; for example {out.stem}.json")
    forms = list(dict.fromkeys(form or (Form.eager, Form.deployed)))
    rounds = rounds or protocol.rounds
    place = _device(device)
    found = _read(networks, cfg_options or ())
    shape = image_shape(found, _size(size))
    if per_block:
        if baseline != "vanilla":
            raise ValueError("--per-block compares each connection with none; remove --baseline")
        _say_per_block(
            networks, found, forms, out, batch=batch, shape=shape, rounds=rounds, dtype=dtype.dtype, device=place
        )
        return
    check_folder(out.parent)  # fail now, not after minutes of timing
    compared = candidates(found, forms, baseline=baseline, dtype=dtype.dtype, device=place)
    record = record_timing(out, compared, batch=batch, shape=shape, rounds=rounds, dtype=dtype.dtype)
    rows = [NetworkRow.of_record(name, measured, measured["accuracy"]) for name, measured in record["networks"].items()]
    where = f"CPU threads: {torch.get_num_threads()}" if record["device"] == "cpu" else record["environment"]["gpus"][0]
    what = " ".join([*(Path(name).stem for name in networks), *(f.value for f in forms[:1] if len(forms) == 1)])
    title = f"{what}: batch {batch} at {size_text(record['size'])} pixels, {dtype.value}, {where}, {rounds} rounds"
    write_text(out.with_suffix(".csv"), _csv(record["networks"]))
    draw = trade_figure if all(row.accuracy is not None for row in rows) else increment_figure
    draw(rows, title, out.with_suffix(".png"))
    print_table([row.cells() for row in rows], title=title)
    spreads = [
        (high - low) / one["median_s"] for one in record["networks"].values() for low, high in [one["quartiles_s"]]
    ]
    _warn(record["clock"]["before"], record["device"], max(spreads))
    typer.echo(f"record: {out}, with {out.stem}.csv and {out.stem}.png")
    for name in networks:
        if Path(name).is_dir() and Run(Path(name)).test is None:
            typer.echo(f"{name} has no {TEST}: run `ean test` to add the accuracy")


def _warn(clock: Mapping[str, Any], device: str, spread: float = 0.0) -> None:
    """Say if other programs, or something else, made the intervals wide."""
    threads = torch.get_num_threads() if device == "cpu" else 0
    if found := disturbance(clock["load_average_1min"], threads, spread, os.cpu_count() or 1):
        advice = "time on an idle machine, or with more --rounds, for narrower intervals"
        typer.echo(f"warning: {found}; {advice}", err=True)


def _default_out(networks: Sequence[str]) -> Path:
    if len(networks) > 1:
        return Path("work_dirs") / TIMING
    only = Path(networks[0])
    return only / TIMING if only.is_dir() else Path("work_dirs") / f"timing_{only.stem}.json"


def _read(names: Sequence[str], options: Sequence[str]) -> list[Variant]:
    """Return the networks to time: all variants of a config; for a run, its network and a vanilla one."""
    found: list[Variant] = []
    vanilla: list[Variant] = []
    for name in names:
        if Path(name).is_dir():
            if options:
                raise ValueError(f"--cfg-options apply to configs, not to a run like {name}")
            config, trained = trained_variant(Path(name))
            found.append(trained)
            vanilla.append(variant(config, "vanilla"))
        else:
            found += variants(checked_config(name, options))
    for plain in vanilla:
        if not any(v.connection == "vanilla" and v.alike == plain.alike for v in found):
            found.insert(0, plain)
    return found


def _say_per_block(
    names: Sequence[str],
    found: Sequence[Variant],
    forms: Sequence[Form],
    out: Path,
    *,
    batch: int,
    shape: tuple[int, Size],
    rounds: int,
    dtype: torch.dtype,
    device: str,
) -> None:
    whole = [each for each in found if each.connection == "Share-full"]
    if len(names) > 1 or not whole:
        raise ValueError(f"--per-block takes one config, got {' '.join(names)}")
    profiles = time_per_block(
        whole[0].network, forms, out, batch=batch, shape=shape, rounds=rounds, dtype=dtype, device=device
    )
    stages = find_backbone(whole[0].network).stage_blocks
    places = [f"{k + 1}.{i + 1}" for k, n in enumerate(stages) for i in range(n)]
    times = {form: profile.times for form, (profile, _) in profiles.items()}
    rows = []
    for index, place in enumerate(places):
        cells = {"block": place}
        for form, t in times.items():
            cells[f"{form} (ms)"] = f"{1e3 * (t.bodies[index] + t.joins[index]):.3f}"
            cells[f"+ attention, {form} (ms)"] = f"{1e3 * t.connections[index]:+.4f}"
        rows.append(cells)
    print_table(rows, title=f"{whole[0].attention}, batch {batch}, median of {rounds} passes")
    _warn(clock_notes(torch.device(device)), device)
    for form, (profile, file) in profiles.items():
        line = f"{form}: all connections add {in_percent(profile.increment, profile.increment_interval, 2)} %"
        for each in found:
            if each.connection == "EAN":
                scheme = find_backbone(each.network).scheme
                share = times[form].connected(scheme) / times[form].whole(ConnectionScheme.none(scheme.stages))
                line += f", those of {scheme} {100 * share:+.2f} %"
        typer.echo(
            f"{line}\nrecord: {file}; use it in a search with --cfg-options search.reward.sparsity=0 "
            f"search.reward.latency=2 search.reward.table={file}"
        )


def _size(text: str | None) -> Size | None:
    """Parse ``--size``."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if match is None:
        raise ValueError(f"--size must be a number of pixels or HEIGHTxWIDTH, such as 224 or 768x1024, got {text!r}")
    return (int(match[1]), int(match[2])) if match[2] else int(match[1])


def _device(name: str | None) -> str:
    """Return the device to time on, ``cpu`` or ``cuda``.

    Raises:
        ValueError: if the device is not available.
    """
    here = ["cuda", "cpu"] if get_device() == "cuda" else ["cpu"]  # on other devices we would only time queueing
    if name is not None and name not in here:
        raise ValueError(f"--device {name} is not available; choose from {', '.join(here)}")
    return name or here[0]


def _csv(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """Format one line of plain numbers per network."""
    lines = []
    for name, measured in networks.items():
        plain = dict(measured)
        for key in ("quartiles_s", "increment_interval"):
            plain[f"{key}_low"], plain[f"{key}_high"] = plain.pop(key) or (None, None)
        lines.append({"network": name, **plain})
    return csv_text(lines[0], (line.values() for line in lines))

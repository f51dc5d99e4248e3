"""The command ``ean quickstart``: supernet, search, training and timing on a small data set."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import typer
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS
from torch import nn

from ean_core.common.output import progress_only, say
from ean_core.common.record import write_text
from ean_core.inference.comparison import Variant, candidates, image_shape, record_timing
from ean_core.runs.folder import RUN_SETTINGS, TIMING, Run, check_same_settings
from ean_core.runs.training import run_test, run_training
from ean_core.show.figures import trade_figure
from ean_core.show.table import NetworkRow, markdown_table, print_table
from ean_core.weights.loading import load_weights

from .options import Dataset, checked_config, resumable, use_bf16
from .search import run_search


def quickstart(
    dataset: Dataset,
    work_dir: Path | None,
    resume: bool,
    amp: bool,
    cfg_options: list[str] | None,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    folder = work_dir or Path("quickstart") / dataset.value
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise FileExistsError(f"{folder} is not empty; add --resume to continue it, or --work-dir to start elsewhere")
    with resumable(folder), progress_only():
        rows = run_quickstart(dataset.value, folder, amp=amp, options=cfg_options or [])
    print_table([row.cells() for row in rows], title=_title(dataset.value, folder))
    typer.echo(f"figure, ledger and records: {folder}")


def run_quickstart(dataset: str, folder: Path, *, amp: bool, options: list[str]) -> list[NetworkRow]:
    """Run the unfinished steps and return the table's rows: vanilla, Share-full, EAN.

    Args:
        dataset: ``digits`` or ``cifar100``.
        folder: folder for all output.
        amp: train with bf16 autocast.
        options: overrides for all configs.
    """
    if dataset == "digits":
        torch.set_num_threads(1)  # 8x8 images cannot use a second core, and extra threads stall on a busy machine

    def config(name: str, *more: str) -> Config:
        cfg = checked_config(name, [*options, *more])
        if amp:
            use_bf16(cfg)
        return cfg

    _say_step("1/4", "supernet: a random connection scheme in every iteration")
    supernet = _trained(config(f"supernet_resnet20_se_{dataset}"), folder / "supernet")

    _say_step("2/4", "search: a controller proposes schemes, rewarded for validation accuracy and sparsity")
    result = run_search(config(f"search_resnet20_se_{dataset}"), supernet, folder / "search", resume=True)
    assert result is not None  # this is the only process
    found = result.scheme.scheme
    say(f"found {found}")

    schemes = {"vanilla": "none", "Share-full": "full", "EAN": str(found)}
    networks, tests = {}, {}
    for name, scheme in schemes.items():
        _say_step("3/4", f"training {name} from scratch")
        cfg = config(f"resnet20_se_{dataset}", f"model.backbone.scheme={scheme}")
        place = folder / name.lower()
        checkpoint = _trained(cfg, place)
        if Run(place).test is None:
            run_test(cfg, checkpoint, place)
        tests[name] = _test(place)
        networks[name] = _loaded(cfg, checkpoint)

    _say_step("4/4", "timing, batch 50")
    size = config(f"resnet20_se_{dataset}").image_size
    variants = [Variant("", name, network, size=size) for name, network in networks.items()]
    timing = record_timing(folder / TIMING, candidates(variants), batch=50, shape=image_shape(variants), rounds=100)
    rows = [
        NetworkRow.of_record(name, measured, tests[name]["metrics"]["accuracy/top1"])
        for name, measured in timing["networks"].items()
    ]
    write_text(folder / "table.md", markdown_table([row.cells() for row in rows]) + "\n")
    trade_figure(rows, _title(dataset, folder), folder / "figure.png")
    return rows


def _trained(config: Config, folder: Path) -> Path:
    """Return the last checkpoint of a run, after finishing its training if necessary."""
    run = Run(folder)
    if run.latest is None or run.record is None:
        return run_training(config, folder, resume=True)
    check_same_settings(run.record["settings"], config, RUN_SETTINGS, f"{folder} holds a run with")
    return run.latest


def _test(folder: Path) -> Mapping[str, Any]:
    """Return the test record of a run."""
    test = Run(folder).test
    assert test is not None
    return test


def _loaded(config: Config, checkpoint: Path) -> nn.Module:
    network = MODELS.build(config.model)
    load_weights(network, checkpoint, strict=True)
    return network.eval().to(get_device())


def _title(dataset: str, folder: Path) -> str:
    return f"ResNet20-SE on {dataset}, {_test(folder / 'vanilla')['images']:,} test images"


def _say_step(step: str, text: str) -> None:
    width = shutil.get_terminal_size().columns
    say(f"[{step}] {text}"[:width])

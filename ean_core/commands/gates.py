"""The command ``ean gates``: gate statistics of each connected block."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS
from mmengine.runner import Runner

from ean_core.backbone import find_backbone
from ean_core.common.config import config_name
from ean_core.common.memory import keep_freed_memory
from ean_core.common.record import csv_text, write_record, write_text
from ean_core.inference.statistics import NEARLY_CONSTANT, GateStatistics, gate_statistics
from ean_core.report.gates import block_names, gates_figure
from ean_core.runs.folder import check_same_network, chosen_checkpoint
from ean_core.runs.outside import check_data
from ean_core.runs.terminal import announce, data_text
from ean_core.show.table import Cells, print_table
from ean_core.weights.files import WeightsFile
from ean_core.weights.loading import load_weights

from .options import prepare, suggest


def run_gates(config: Config, checkpoint: Path, work_dir: Path) -> dict[str, GateStatistics]:
    """Measure the gates of a checkpoint on the config's validation images or, if it has none, its test images.

    Writes ``gates.json``, ``gates.csv`` and ``gates.png``.

    Returns:
        Statistics by name of each connected block: stage and index from 1, such as ``2.1``.

    Raises:
        ValueError: if the checkpoint does not belong to the config's network, or no block is connected.
    """
    name = "val_dataloader" if config.get("val_dataloader") else "test_dataloader"
    check_data(config, name)
    settings = config[name]
    file = WeightsFile(checkpoint)
    check_same_network(file, config)
    keep_freed_memory()
    model = MODELS.build(config.model).to(get_device()).eval()
    load_weights(model, file, strict=True)
    batches = Runner.build_dataloader(settings, seed=config.randomness.get("seed") or 0)
    announce("gates", config, model, data_text(settings, batches.dataset), work_dir, f"weights: {checkpoint}")
    statistics = gate_statistics(model, batches)
    backbone = find_backbone(model)
    names = block_names(backbone.scheme)
    fields: dict[str, Any] = {
        "config": config_name(config),
        "checkpoint": checkpoint.name,
        "attention": backbone.attention_cfg["type"],
        "scheme": str(backbone.scheme),
        "data": settings.dataset.to_dict(),
        "images": len(batches.dataset),
        "blocks": [{"block": names[number], **asdict(found)} for number, found in statistics.items()],
    }
    write_record(work_dir / "gates.json", kind="gates", **fields)
    rows = fields["blocks"]
    write_text(work_dir / "gates.csv", csv_text(rows[0], (row.values() for row in rows)))
    gates_figure(fields, work_dir / "gates.png")
    return {names[number]: found for number, found in statistics.items()}


def _cells(block: str, own: GateStatistics) -> Cells:
    """Return the table row of a connected block."""
    return {
        "block": block,
        "mean": f"{own.mean:.3f}",
        "between channels": f"{own.between_channels:.3f}",
        "between images": f"{own.between_images:.3f}",
        "of the mean (%)": f"{100 * own.between_images / own.mean:.1f}",
    }


def gates(
    config: str,
    checkpoint: Path,
    work_dir: Path | None,
    cfg_options: list[str] | None,
) -> None:
    """Do the work of the command; :mod:`ean_core.commands.cli` declares its arguments and options."""
    checkpoint = chosen_checkpoint(checkpoint)
    cfg, folder = prepare(config, work_dir or checkpoint.parent, cfg_options)
    statistics = run_gates(cfg, checkpoint, folder)
    print_table([_cells(name, found) for name, found in statistics.items()], title="Gates of connected blocks")
    constant = [name for name, found in statistics.items() if found.nearly_constant]
    share = f"less than {100 * NEARLY_CONSTANT:.0f} % of"
    if constant:
        typer.echo(f"nearly constant gates, which vary between images by {share} their mean: {', '.join(constant)}")
        suggest("put constants in their place", "ean", "fold", config, checkpoint, cfg_options=cfg_options)
    else:
        typer.echo(f"no gate varies between images by {share} its mean")
    typer.echo(f"record: {folder / 'gates.json'}, figure: {folder / 'gates.png'}")

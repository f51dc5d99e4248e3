"""``ean seg evaluate``: a segmentor's mIoU on test images and the time of its attention, as a row of Table 5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from mmengine.dist import is_main_process
from mmengine.registry import DATASETS

from ean_core.commands.options import Launcher, prepare, suggest
from ean_core.inference.comparison import increments_over_vanilla, variant
from ean_core.runs.folder import TIMING, Run, chosen_checkpoint
from ean_core.runs.processes import initialize_processes
from ean_core.runs.training import run_test
from ean_core.show.table import print_table, size_text
from ean_core.weights.loading import load_weights
from tasks.tables import TaskRow, write_row

from .dataset import PreparedVOC
from .figures import prediction_figure
from .segmenter import Segmenter
from .task import TASK
from .voc import constant_answer

METRICS = tuple(metric.name for metric in TASK.metrics)


def evaluate_command(
    config: str,
    checkpoint: Path,
    time: bool,
    rounds: int,
    work_dir: Path | None,
    cfg_options: list[str] | None,
    launcher: Launcher,
) -> None:
    """Do the work of the command; :mod:`tasks.segmentation.cli` declares its arguments and options."""
    checkpoint = chosen_checkpoint(checkpoint)
    cfg, folder = prepare(config, work_dir or checkpoint.parent, cfg_options)
    initialize_processes(cfg, launcher.value)
    metrics = run_test(cfg, checkpoint, folder, launcher.value)
    if not is_main_process():
        return
    own = variant(cfg, "EAN")
    load_weights(own.network, checkpoint, strict=True)
    increments = increments_over_vanilla(cfg, own, folder / TIMING, rounds) if time else {}
    test = Run(folder).test
    assert test is not None  # run_test wrote it
    row = TaskRow.of(
        own,
        data=_data(test),
        metrics={name: metrics[name] for name in METRICS},
        parameters=test["parameters"],
        increments=increments,
    )
    cells = row.cells({f"{' / '.join(METRICS)} (%)": " / ".join(f"{metrics[name]:.2f}" for name in METRICS)})
    measured = DATASETS.build(cfg.test_dataloader.dataset)
    constant = constant_answer(measured.class_pixels) if isinstance(measured, PreparedVOC) else None
    facts = {"images": test["images"], "test": test["checkpoint"], "constant_answer": constant}
    write_row(folder, 5, row, cells, **facts)
    print_table([cells], title=f"As Table 5; time of one image of {size_text(list(cfg.image_size))} pixels")
    written = "table5.json, .md and .csv, metrics per class in classes.csv"
    if isinstance(measured, PreparedVOC):
        prediction_figure(Segmenter(own.network, checkpoint.name), measured, folder / "predictions.png")  # type: ignore[arg-type]
        written += ", examples in predictions.png"
    if constant is not None:
        texts = [f"{name} {constant[name]:.2f}" for name in METRICS]
        typer.echo(f"predicting background everywhere has {', '.join(texts)}")
    typer.echo(f"{folder}: {written}")
    suggest("label images with it", "ean", "seg", "predict", "IMAGES", "--model", checkpoint)


def _data(test: Mapping[str, Any]) -> str:
    """Data set and split of a test record."""
    data = test["data"]
    name = "VOC 2012" if data["type"] == PreparedVOC.__name__ else data.get("dataset", data)["type"]
    return f"{name}, {test['images']} images" + (f" of {data['split']}" if "split" in data else "")

"""``ean crowd evaluate``: a counter's errors on test images and the time of its attention, as a row of Table 3;
``ean crowd characterize``: its errors and its training images, stored with its weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, is_main_process
from mmengine.registry import DATASETS, MODELS

from ean_core.commands.options import Launcher, prepare, suggest
from ean_core.common.intervals import Interval, mean_interval, told_apart
from ean_core.common.text import number_of
from ean_core.inference.comparison import increments_over_vanilla, variant
from ean_core.runs.folder import TIMING, Run, chosen_checkpoint
from ean_core.runs.processes import initialize_processes
from ean_core.runs.training import run_test
from ean_core.show.table import print_table, size_text
from ean_core.weights.loading import load_weights
from tasks.prepared import MANIFEST
from tasks.tables import TaskRow, write_row

from .annotations import find_shanghaitech
from .counter import Counter
from .dataset import CrowdDataset
from .familiar import characterize, summary
from .figures import learning_curve, naive_error, prediction_figure
from .metrics import read_errors
from .prepare import prepare as prepare_pictures
from .prepare import say

PARTS = {"A": "ShanghaiTech A", "B": "ShanghaiTech B", "own": "custom images"}


def use_data(config: Config, data: Path, folder: Path) -> None:
    """Take a config's test images from a prepared folder, or from a ShanghaiTech folder, which rank 0 then prepares.

    Args:
        config: config to change the test data set of.
        data: the folder.
        folder: folder of the run, for prepared images.

    Raises:
        FileNotFoundError: if it is neither.
    """
    wanted = config.test_dataloader.dataset
    if not (data / MANIFEST).is_file():
        what = f"{data.resolve()} {wanted.get('part')} {wanted.split}"
        out = folder / f"prepared_{hashlib.sha256(what.encode()).hexdigest()[:8]}"
        if is_main_process():
            found = find_shanghaitech(data)
            found.images = [
                image
                for image in found.images
                if wanted.get("part") in (None, image.part) and (image.split == "test") == (wanted.split == "test")
            ]
            if not found.images:
                raise FileNotFoundError(f"{data} has no images of part {wanted.get('part')} for split {wanted.split!r}")
            say(prepare_pictures(found, data, out, workers=os.cpu_count() or 1), out)
        barrier()
        data = out
    wanted.root = str(data.resolve())


def draw_figures(counter: Counter, measured: CrowdDataset, checkpoint: Path, folder: Path, naive: float | None) -> None:
    """Write ``predictions.png``, six of the measured images with ground truth and prediction, and, if the checkpoint's
    run has a record, ``learning_curve.png``.

    Args:
        counter: measured counter.
        measured: measured images.
        checkpoint: checkpoint of the counter.
        folder: output folder.
        naive: MAE of always predicting the mean of the training images, if these images validated the training.
    """
    prediction_figure(counter, measured, folder / "predictions.png")
    run = Run(checkpoint.parent)
    if run.record and run.validations:
        learning_curve(run, folder / "learning_curve.png", naive)


def _naive_error(config: Config, measured: CrowdDataset) -> float | None:
    """MAE of always predicting the mean of the training images; None if these are not in the same folder."""
    try:
        training = DATASETS.build({**config.train_dataloader.dataset, "root": str(measured.folder)})
    except ValueError:
        return None
    return naive_error(training, measured)


def compare(errors: Sequence[float], other: Counter, measured: CrowdDataset) -> tuple[Interval, Interval]:
    """Compare a counter with another one on the same images.

    Args:
        errors: absolute error of the counter on each image of ``measured``, in order.
        other: the other counter.
        measured: whole images.

    Returns:
        MAE of the other counter, and the mean difference of the absolute errors, negative if the first counter is
        better; both with their 95 % intervals over the images.
    """
    theirs = []
    for number in range(len(measured)):
        item = measured[number]
        count = other(item["inputs"].permute(1, 2, 0).numpy()).count
        theirs.append(abs(count - len(item["points"])))
    return mean_interval(theirs), mean_interval([own - their for own, their in zip(errors, theirs, strict=True)])


# ---------------------------------------------------------------- commands


def evaluate_command(
    config: str,
    checkpoint: Path,
    data: Path | None,
    against: str | None,
    time: bool,
    rounds: int,
    work_dir: Path | None,
    cfg_options: list[str] | None,
    launcher: Launcher,
) -> None:
    """Do the work of the command; :mod:`tasks.crowd_counting.cli` declares its arguments and options."""
    checkpoint = chosen_checkpoint(checkpoint)
    cfg, folder = prepare(config, work_dir or checkpoint.parent, cfg_options)
    initialize_processes(cfg, launcher.value)
    if data is not None:
        use_data(cfg, data, folder)
    metrics = run_test(cfg, checkpoint, folder, launcher.value)
    if not is_main_process():
        return
    own = variant(cfg, "EAN")
    load_weights(own.network, checkpoint, strict=True)
    measured = DATASETS.build(cfg.test_dataloader.dataset)
    increments = increments_over_vanilla(cfg, own, folder / TIMING, rounds) if time else {}
    test = Run(folder).test
    assert test is not None  # run_test wrote it
    part = PARTS.get(test["data"].get("part"), "all parts")
    row = TaskRow.of(
        own,
        data=f"{part}, {test['images']} {test['data']['split']} images",
        metrics=metrics,
        parameters=test["parameters"],
        increments=increments,
    )
    errors = f"{metrics['count/MAE']:.1f} / {metrics['count/RMSE']:.1f}"
    mean = metrics["count/MAE"]
    mae = Interval(mean, *test.get("intervals", {}).get("count/MAE", (mean, mean)))  # a single image has no interval
    cells = row.cells({"MAE / MSE (RMSE)": errors, "NAE": f"{metrics['count/NAE']:.3f}"})
    naive = _naive_error(cfg, measured)
    facts: dict[str, Any] = {"images": test["images"], "test": test["checkpoint"], "naive_MAE": naive}
    facts["MAE_interval"] = [mae.low, mae.high]
    if against is not None:
        other = Counter.load(against)
        theirs, difference = compare([error for _, error in read_errors(folder)], other, measured)
        facts["against"] = {"model": against, "MAE": theirs._asdict(), "difference": difference._asdict()}
    write_row(folder, 3, row, cells, **facts)
    validated = cfg.test_dataloader.dataset.split == "val"
    counter = Counter(own.network, checkpoint.name)  # type: ignore[arg-type]
    draw_figures(counter, measured, checkpoint, folder, naive if validated else None)
    print_table([cells], title=f"As Table 3; time of one image of {size_text(list(cfg.image_size))} pixels")
    several = test["images"] > 1
    typer.echo(f"MAE {mae.text()} over {number_of(test['images'], 'image')}{' (95 %)' * several}")
    if against is not None:
        typer.echo(
            f"MAE of {other.name} {theirs.text()}; difference {difference.text(sign='+')}: "
            + told_apart(difference, test["images"])
        )
    if naive is not None:
        typer.echo(f"always predicting the mean of the training images has an MAE of {naive:.1f}")
    typer.echo(
        f"{folder}: table3.json, .md and .csv, the count of each image in counts.csv, six examples in predictions.png"
    )
    suggest("count people with it", "ean", "crowd", "predict", "IMAGES", "--model", checkpoint)


def characterize_command(
    config: str,
    checkpoint: Path,
    data: Path | None,
    cfg_options: list[str] | None,
) -> None:
    """Do the work of the command; :mod:`tasks.crowd_counting.cli` declares its arguments and options."""
    checkpoint = chosen_checkpoint(checkpoint)
    cfg, _ = prepare(config, checkpoint.parent, cfg_options)
    loaders = (cfg.train_dataloader, cfg.val_dataloader)
    for loader in loaders:
        if data is not None:
            loader.dataset.root = str(data.resolve())
    training, validation = (DATASETS.build(loader.dataset) for loader in loaders)
    network = MODELS.build({key: value for key, value in cfg.model.items() if key != "init_cfg"}).to(get_device())
    found = characterize(checkpoint, network, training, validation)
    typer.echo(f"{checkpoint}: {summary(found, len(training))}")
    typer.echo(f"the file has changed: `ean test {config} {checkpoint}` renews its test.json")

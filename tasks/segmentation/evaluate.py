"""``ean seg evaluate``: a segmentor's mIoU on test images and the time of its attention, as a row of Table 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from mmengine.dist import is_main_process
from mmengine.registry import DATASETS

from ean_core.checkpoint import load_weights
from ean_core.inference.comparison import Variant, connection, increments_over_vanilla, variant
from ean_core.options import CfgOptions, ConfigName, Launcher, LauncherName, prepare
from ean_core.record import csv_text, read_record, write_record, write_text
from ean_core.report.table import in_percent, markdown_table, print_table, size_text
from ean_core.supernet import find_backbone
from ean_core.training import initialize_processes, run_test

from .dataset import PreparedVOC
from .figures import prediction_figure
from .segmenter import Segmenter
from .voc import constant_answer

METRICS = ("mIoU", "mAcc", "aAcc")


@dataclass(frozen=True)
class SegmentationRow:
    """One segmentor, in the form of Table 5.

    Args:
        data: data set and list, e.g. ``'VOC 2012, 1449 images of val'``.
        network: e.g. ``'ResNet-50 SE'``.
        connection: ``vanilla``, ``Org-full``, ``Share-full`` or ``EAN``.
        scheme: its connections.
        metrics: ``mIoU``, ``mAcc`` and ``aAcc``, in percent.
        parameters: number of them.
        increments: relative inference time increment of the whole segmentor (Eqn 9) and its 95 % interval, by form.
    """

    titles: ClassVar[tuple[str, ...]] = (
        "data",
        "network",
        "connection",
        "mIoU / mAcc / aAcc (%)",
        "increment (%)",
        "deployed (%)",
        "parameters",
        "scheme",
    )
    words: ClassVar[tuple[str, ...]] = ("data", "network", "connection", "scheme")

    data: str
    network: str
    connection: str
    scheme: str
    metrics: Mapping[str, float]
    parameters: int
    increments: Mapping[str, tuple[float, tuple[float, float] | None]]

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        cells = {
            "data": self.data,
            "network": self.network,
            "connection": self.connection,
            "mIoU / mAcc / aAcc (%)": " / ".join(f"{self.metrics[name]:.2f}" for name in METRICS),
            "parameters": f"{self.parameters:,}",
            "scheme": self.scheme,
        }
        for form, title in (("eager", "increment (%)"), ("deployed", "deployed (%)")):
            if form in self.increments:
                cells[title] = in_percent(*self.increments[form])
        return cells


# ---------------------------------------------------------------- command


def evaluate_command(
    config: ConfigName,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of the whole segmentor.")],
    time: Annotated[bool, typer.Option(help="Time the segmentor beside the vanilla one.")] = True,
    rounds: Annotated[int, typer.Option(help="Forward passes of each network.", min=2)] = 20,
    work_dir: Annotated[Path | None, typer.Option(help="Folder of the records; the checkpoint's by default.")] = None,
    cfg_options: CfgOptions = None,
    launcher: LauncherName = Launcher.none,
) -> None:
    """Measure a segmentor on test images, and what its attention adds to its time: a row of Table 5."""
    cfg, folder = prepare(config, work_dir or checkpoint.parent, cfg_options)
    initialize_processes(cfg, launcher.value)
    metrics = run_test(cfg, checkpoint, folder, launcher.value)
    if not is_main_process():
        return
    own = variant(cfg, "EAN")
    load_weights(own.network, checkpoint, strict=True)
    increments = increments_over_vanilla(cfg, own, folder / "timing.json", rounds) if time else {}
    test = read_record(folder / "test.json")
    row = _row(own, test, metrics, increments)
    measured = DATASETS.build(cfg.test_dataloader.dataset)
    constant = constant_answer(measured.class_pixels) if isinstance(measured, PreparedVOC) else None
    facts = {"images": test["images"], "test": test["checkpoint"], "constant_answer": constant}
    write_record(folder / "table5.json", kind="table 5", **asdict(row), **facts)
    write_text(folder / "table5.md", markdown_table([row]) + "\n")
    write_text(folder / "table5.csv", csv_text(row.cells(), [row.cells().values()]))
    print_table([row], title=f"As Table 5; time of one image of {size_text(list(cfg.image_size))} pixels")
    written = "table5.json, .md and .csv, each class in classes.csv"
    if isinstance(measured, PreparedVOC):
        prediction_figure(Segmenter(own.network, checkpoint.name), measured, folder / "predictions.png")  # type: ignore[arg-type]
        written += ", some images in predictions.png"
    if constant is not None:
        texts = [f"{name} {constant[name]:.2f}" for name in METRICS]
        typer.echo(f"calling every pixel background has {', '.join(texts)}")
    typer.echo(f"{folder}: {written}")


def _row(own: Variant, test: Mapping[str, Any], metrics: Mapping[str, float], increments: Any) -> SegmentationRow:
    backbone = find_backbone(own.network)
    attention = [own.attention] if backbone.scheme.connections else []
    data = test["data"]
    name = "VOC 2012" if data["type"] == PreparedVOC.__name__ else data.get("dataset", data)["type"]
    images = f"{test['images']} images" + (f" of {data['split']}" if "split" in data else "")
    return SegmentationRow(
        data=f"{name}, {images}",
        network=" ".join([f"ResNet-{backbone.depth}", *attention]),
        connection=connection(own.network),
        scheme=str(backbone.scheme),
        metrics={metric: metrics[metric] for metric in METRICS},
        parameters=test["parameters"],
        increments=increments,
    )

"""Which loss trains counters best in equal time? Short trainings of the plain ResNet-18 counter on ShanghaiTech B.

    python benchmarks/crowd_losses.py [--epochs 16] [--amp] [--config CONFIG] [--cfg-options KEY=VALUE ...]

Every loss is trained with each of two learning rates and seed 0, and measured on the validation images by the last
epoch's weights. Each row is an `ean train` and an `ean crowd evaluate` in work_dirs/crowd_losses; if interrupted, the
script continues there. Writes benchmarks/results/crowd_losses.json.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

from ean_core.common.config import load_config
from ean_core.common.intervals import mean_interval
from ean_core.common.record import write_record, write_text
from ean_core.runs.folder import Run
from ean_core.show.table import print_table
from tasks.crowd_counting.metrics import CountMetric

RESULT = Path(__file__).parent / "results" / "crowd_losses.json"
RUNS = Path("work_dirs") / "crowd_losses"
LOSSES = ("DensityL2", "BayesianLoss", "DMCountLoss")
RATES = (5e-5, 2e-4)


def ean(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "tasks.cli", *arguments], check=True)


def measure(config: str, loss: str, rate: float, options: list[str], train: list[str], runs: Path) -> dict[str, Any]:
    """Train and evaluate one counter, or take what is already there."""
    folder = runs / f"{loss}_{rate:g}"
    changed = load_config(config, [f"model.loss.type={loss}", f"optim_wrapper.optimizer.lr={rate}", *options])
    del changed.default_hooks["familiar"]  # these counters only answer for their errors
    written = runs / f"{folder.name}.py"
    write_text(written, changed.pretty_text)
    if Run(folder).record is None:
        ean("train", str(written), "--resume", "--work-dir", str(folder), *train)
    if Run(folder).test is None:
        validated = "test_dataloader.dataset.split=val"
        ean("crowd", "evaluate", str(written), str(folder), "--no-time", "--cfg-options", validated)
    with (folder / CountMetric.table).open() as file:
        errors = [float(line["counted"]) - float(line["people"]) for line in csv.DictReader(file)]
    record = Run(folder).record
    assert record is not None  # the training has ended
    return {
        "loss": loss,
        "learning_rate": rate,
        "epochs": record["epochs"],
        "seconds": record["seconds"],
        "MAE": mean_interval([abs(error) for error in errors])._asdict(),
        "bias": mean_interval(errors)._asdict(),
        "validations": record["validations"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="resnet18_se_shanghaitech_b")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--amp", action="store_true", help="train in bf16")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the trainings")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="more changes of the config")
    arguments = parser.parse_args()
    options = [
        "model.backbone.scheme=none",
        f"train_cfg.max_epochs={arguments.epochs}",
        f"train_cfg.val_interval={arguments.epochs}",
        f"default_hooks.last.epochs={max(1, arguments.epochs // 6)}",  # as in the whole recipe
        *arguments.cfg_options,
    ]
    rows: list[dict[str, Any]] = []
    for loss in LOSSES:
        for rate in RATES:
            rows.append(measure(arguments.config, loss, rate, options, ["--amp"] * arguments.amp, arguments.runs))
            write_record(arguments.out, kind="benchmark", config=arguments.config, amp=arguments.amp, rows=rows)
    print_table(
        [
            {
                "loss": row["loss"],
                "learning rate": f"{row['learning_rate']:g}",
                "MAE": f"{row['MAE']['mean']:.1f} ({row['MAE']['low']:.1f} to {row['MAE']['high']:.1f})",
                "bias": f"{row['bias']['mean']:+.1f}",
                "seconds": f"{row['seconds']:.0f}",
            }
            for row in rows
        ],
        title=f"{arguments.epochs} epochs each; MAE of the validation images with its 95 % interval",
    )
    print(f"record: {arguments.out}")


if __name__ == "__main__":
    main()

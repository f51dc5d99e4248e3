"""Read mmengine's JSON log of a training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ean_core.common.record import check_regular, significant


def training_log(run: Path) -> str:
    """Return mmengine's training log as JSON lines with epoch, iteration, learning rate and loss.

    Args:
        run: folder of the training. If an iteration was logged again after a resume, the later entry counts; a
            ``log.jsonl`` in the folder is an earlier result of this function. Lines cut off by a kill are skipped.
    """
    lines: dict[int, Mapping[str, Any]] = {}
    for path in [*run.glob("log.jsonl"), *sorted(run.glob("*/vis_data/scalars.json"))]:
        check_regular(path)
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            # Other lines are from validations.
            if isinstance(line, dict) and "loss" in line and isinstance(line.get("step"), int):
                kept = ("epoch", "step", "lr", "loss")
                lines[line["step"]] = {key: significant(line[key]) for key in kept if key in line}
    return "".join(json.dumps(line) + "\n" for _, line in sorted(lines.items()))

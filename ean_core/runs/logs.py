"""Reading mmengine's JSON log of a training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ean_core.common.record import significant


def training_log(run: Path) -> str:
    """What mmengine logged of a training, as JSON lines: epoch, iteration, learning rate and loss.

    Args:
        run: folder of the training. Of one that went on after a stop, the later word counts; ``log.jsonl`` in it is
            what this function gave before that. Lines cut off by a kill are left out.
    """
    lines: dict[int, Mapping[str, Any]] = {}
    for path in [*run.glob("log.jsonl"), *sorted(run.glob("*/vis_data/scalars.json"))]:
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and {"step", "loss"} <= line.keys():  # others are of validations
                kept = ("epoch", "step", "lr", "loss")
                lines[line["step"]] = {key: significant(line[key]) for key in kept if key in line}
    return "".join(json.dumps(line) + "\n" for _, line in sorted(lines.items()))

"""Reading mmengine's JSON log of a training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from ean_core.common.record import significant


def training_log(run: Path) -> str:
    """What mmengine logged of a training, as JSON lines: epoch, iteration, learning rate and loss.

    Args:
        run: folder of the training. Of one that went on after a stop, the later word counts; ``log.jsonl`` in it is
            what this function gave before that.
    """
    lines: dict[int, Mapping[str, Any]] = {}
    for line in chain.from_iterable(read_starts(run).values()):
        if "loss" in line:
            lines[line["step"]] = {
                key: significant(line[key]) for key in ("epoch", "step", "lr", "loss") if key in line
            }
    return "".join(json.dumps(line) + "\n" for _, line in sorted(lines.items()))


def read_starts(run: Path) -> dict[Path, list[Mapping[str, Any]]]:
    """What mmengine logged of a training, by the file of each start, oldest first; lines cut off by a kill left out.

    Lines with a loss are of iterations, by number in ``step``; the others are of validations, whose ``step`` is the
    epoch.
    """
    starts = {}
    for path in [*run.glob("log.jsonl"), *sorted(run.glob("*/vis_data/scalars.json"))]:
        starts[path] = list[Mapping[str, Any]]()
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and "step" in line:
                starts[path].append(line)
    return starts

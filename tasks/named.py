"""Names of networks on the command line, checked before anything is imported that could load them."""

from __future__ import annotations

from pathlib import Path

from ean_core.common.tasks import Task
from zoo.index import find_entry


def check_model(name: str, task: Task | None = None) -> None:
    """Refuse a name that stands for no network; files and folders of runs are checked when they are read.

    Args:
        name: name of a zoo model, a checkpoint, or the folder of a run.
        task: suggest networks of this task only.

    Raises:
        ValueError: if there is no such model, or it has no weights yet; the message gives the nearest names.
    """
    path = Path(name)
    if not (path.suffix in (".pth", ".safetensors") or len(path.parts) > 1 or path.exists()):
        find_entry(name, task.name if task else None)

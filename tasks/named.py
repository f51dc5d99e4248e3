"""Names of networks on the command line, checked before anything is imported that could load them."""

from __future__ import annotations

from pathlib import Path

from zoo.index import find_entry


def check_model(name: str) -> None:
    """Refuse a name that stands for no network; files and folders of runs are checked when they are read.

    Args:
        name: name of a zoo model, a checkpoint, or the folder of a run.

    Raises:
        ValueError: if there is no such model, or it has no weights yet; the message gives the nearest names.
    """
    path = Path(name)
    if not (path.suffix in (".pth", ".safetensors") or len(path.parts) > 1 or path.exists()):
        find_entry(name)

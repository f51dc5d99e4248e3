"""Read the run records below folders, each once; they are recognized by their ``kind``, not by file name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ean_core.common.record import read_record

#: Callback for a record that a report cannot use: its path and the reason.
LeaveOut = Callable[[Path, str], None]
#: Kinds of records, and the fields that a report needs from each.
KINDS: dict[str, tuple[str, ...]] = {
    "training": ("config", "seed", "epochs", "settings"),
    "test": ("config", "checkpoint", "scheme", "parameters", "images", "metrics"),
    "search": ("config", "strategy", "scheme"),
    "search comparison": ("config", "strategies", "seeds", "batches", "block_times"),
    "correlation": ("config", "epochs", "standard_error", "correlations", "schemes"),
    "timing": ("batch", "size", "dtype", "rounds", "networks"),
    "gates": ("config", "attention", "scheme", "images", "blocks"),
    "fold": ("config", "source", "attention", "scheme", "chosen_on", "reported_on"),
    "table 3": ("metrics",),
    "schemes trained alone": ("config", "groups"),
}
#: Fields that all records have, and those of their environment.
OF_ALL, MACHINE = ("command", "finished", "environment"), {"cpu", "threads", "gpus", "packages"}
#: File names of records; damage is reported for these only.
_NAMED = re.compile(r"(record|test|search|compare|correlation|gates|fold|schemes|timing\w*)\.json")
_NO_SLUG = re.compile(r"[^A-Za-z0-9.-]+")


def refuse(path: Path, reason: str) -> None:
    """Leave out nothing: raise an error for any record that cannot be used.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{path}: {reason}")


def read_records(folders: Sequence[Path], leave_out: LeaveOut = refuse) -> dict[Path, Mapping[str, Any]]:
    """Read records of :data:`KINDS` below some folders, sorted by path.

    A file found in several (overlapping) folders is returned once.

    Args:
        folders: folders to search recursively.
        leave_out: called for damaged records.
    """
    found: dict[Path, Mapping[str, Any]] = {}
    seen: set[Path] = set()
    for path in sorted(path for folder in folders for path in folder.rglob("*.json")):
        if path.resolve() in seen or not path.is_file():
            continue
        seen.add(path.resolve())
        try:
            record = read_record(path)
        except (ValueError, OSError) as error:
            if _NAMED.fullmatch(path.name):
                leave_out(path, str(error).removeprefix(f"{path} "))
            continue
        kind = record.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            continue
        missing = [name for name in (*KINDS[kind], *OF_ALL) if name not in record or record[name] in ({}, [])]
        if missing or not record["environment"].keys() >= MACHINE:
            wanted = ", ".join(map(repr, missing)) or "a machine in 'environment'"
            leave_out(path, f"a record of kind {kind!r} needs {wanted}, missing here")
        else:
            found[path] = record
    return found


def of_kind(records: Mapping[Path, Mapping[str, Any]], kind: str) -> dict[Path, Mapping[str, Any]]:
    """Records of one kind."""
    return {path: record for path, record in records.items() if record["kind"] == kind}


def label(path: Path, folders: Sequence[Path]) -> str:
    """Name of a record for readers: its folder, plus its file name where that is not the default of its kind; relative
    to the common parent of the searched folders.

    Examples:
        >>> label(Path('here/runs/ean/timing_a.json'), [Path('here/runs')])
        'ean/timing_a'
        >>> label(Path('there/runs/ean/record.json'), [Path('here/runs'), Path('there/runs')])
        'there/runs/ean'
    """
    usual = path.stem in ("record", "test", "search", "compare", "correlation", "gates", "fold", "schemes", "timing")
    place = (path.parent if usual else path.with_suffix("")).resolve()
    common = os.path.commonpath([folder.resolve() for folder in folders])
    return place.relative_to(common).as_posix()


def slug(label: str) -> str:
    """Turn a label into a part of file names, links and HTML ids.

    Examples:
        >>> slug('gates/my run (2)')
        'gates_my_run_2'
    """
    return _NO_SLUG.sub("_", label).strip("_")

"""Run records below folders, each read once: found by what they say they are, not by the names of their files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ean_core.common.record import read_record

#: What happens to a record that a report cannot use: its path, and why.
LeaveOut = Callable[[Path, str], None]
#: Kinds of records, and the fields that a report needs of each.
KINDS: dict[str, tuple[str, ...]] = {
    "training": ("config", "seed", "epochs", "settings"),
    "test": ("config", "checkpoint", "scheme", "parameters", "images", "metrics"),
    "search": ("config", "strategy", "scheme"),
    "search comparison": ("config", "strategies", "seeds", "batches", "block_times"),
    "correlation": ("config", "epochs", "standard_error", "correlations", "schemes"),
    "timing": ("batch", "size", "dtype", "rounds", "networks"),
    "gates": ("config", "attention", "scheme", "images", "blocks"),
    "schemes trained alone": ("config", "groups"),
}
#: What all records have, and what they say of their machine.
OF_ALL, MACHINE = ("command", "finished", "environment"), {"cpu", "threads", "gpus", "packages"}
#: Files that are records by their names: of these it is said if they are damaged.
_NAMED = re.compile(r"(record|test|search|compare|correlation|gates|schemes|timing\w*)\.json")
_NO_SLUG = re.compile(r"[^A-Za-z0-9.-]+")


def refuse(path: Path, reason: str) -> None:
    """Leave out nothing: what cannot be used is an error.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{path}: {reason}")


def read_records(folders: Sequence[Path], leave_out: LeaveOut = refuse) -> dict[Path, Mapping[str, Any]]:
    """The records of :data:`KINDS` below some folders, by their path, sorted.

    A file that two of the folders hold, because they overlap, is there once.

    Args:
        folders: searched, with all that is in them.
        leave_out: what to do with damaged ones.
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
            leave_out(path, f"a record of kind {kind!r} has {wanted}, this one has not")
        else:
            found[path] = record
    return found


def of_kind(records: Mapping[Path, Mapping[str, Any]], kind: str) -> dict[Path, Mapping[str, Any]]:
    """Those of one kind."""
    return {path: record for path, record in records.items() if record["kind"] == kind}


def label(path: Path, folders: Sequence[Path]) -> str:
    """The name of a record for a reader: its folder's, and its own where that is not the usual one of its kind; below
    the folder that all those in which records were found have in common.

    Examples:
        >>> label(Path('here/runs/ean/timing_a.json'), [Path('here/runs')])
        'ean/timing_a'
        >>> label(Path('there/runs/ean/record.json'), [Path('here/runs'), Path('there/runs')])
        'there/runs/ean'
    """
    usual = path.stem in ("record", "test", "search", "compare", "correlation", "gates", "schemes", "timing")
    place = (path.parent if usual else path.with_suffix("")).resolve()
    common = os.path.commonpath([folder.resolve() for folder in folders])
    return place.relative_to(common).as_posix()


def slug(label: str) -> str:
    """A label as part of the name of a file, of a link and of an element of a page.

    Examples:
        >>> slug('gates/my run (2)')
        'gates_my_run_2'
    """
    return _NO_SLUG.sub("_", label).strip("_")

"""Run records below folders, each read once: found by what they say they are, not by the names of their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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


class Labels:
    """Names of records for a reader: their paths, in the folder that was given.

    Args:
        folders: in which the records were found. Where there are several, their names come first, with as much of what
            is above them as tells them apart.

    Examples:
        >>> Labels([Path('here/runs')]).of(Path('here/runs/ean/timing_a.json'))
        'ean/timing_a'
        >>> Labels([Path('here/runs'), Path('there/runs')]).of(Path('there/runs/ean/record.json'))
        'there/runs/ean'
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = dict(zip(folders, _tails(folders), strict=True))

    def of(self, path: Path) -> str:
        """The name of a record: its folder's, and its own where that is not the usual one of its kind."""
        usual = path.stem in ("record", "test", "search", "compare", "correlation", "gates", "schemes", "timing")
        place = path.parent if usual else path.with_suffix("")
        for folder, name in self._folders.items():
            if folder in (place, *place.parents):
                inner = place.relative_to(folder).as_posix()
                return inner if len(self._folders) == 1 else f"{name}/{inner}".removesuffix("/.")
        return place.as_posix()


def _tails(folders: Iterable[Path]) -> list[str]:
    """The ends of paths, as long as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    longest = max(map(len, parts), default=1)
    for length in range(1, longest + 1):
        tails = ["/".join(each[-length:]) for each in parts]
        if len(set(tails)) == len(set(parts)):
            break
    return tails


def slug(label: str) -> str:
    """A label as part of the name of a file, of a link and of an element of a page.

    Examples:
        >>> slug('gates/my run (2)')
        'gates_my_run_2'
    """
    return _NO_SLUG.sub("_", label).strip("_")

"""How runs stand, by what they keep in their folders: ``progress.json``, records, ledgers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from ean_core.common.record import read_record
from ean_core.report.search import SearchHistory, read_search
from ean_core.runs.folder import Run
from ean_core.search.ledger import read_lines
from ean_core.search.strategy import STRATEGIES, build_strategy

LEDGER = "ledger.jsonl"
#: Without an update for this long beyond twice the usual interval, a run is no longer called running.
PATIENCE_S = 60.0
#: How far below a folder runs are looked for.
DEPTH = 5
#: The networks and the search of a quickstart, in order; it ends by timing them.
QUICKSTART = ("supernet", "search", "vanilla", "share-full", "ean")
EXPECTED = (
    "give the folder of a training, a search, a comparison or a quickstart, such as work_dirs/resnet20_se_cifar100, or "
    "one above them, such as work_dirs"
)


@dataclass(frozen=True)
class Standing:
    """How a training or a search stands.

    Args:
        run: its folder.
        finished: it has said that it is over.
        silence: seconds since its last update; None where nothing tells.
        usual: seconds between two updates, where there were several.
        done: iterations, or evaluations.
        total: that it will have in the end; None where unknown.
        left: seconds that the rest takes at the pace so far; None where unknown.
        history: the ledger of a search; None for a training.
        record: at its end.
    """

    run: Run
    finished: bool
    silence: float | None = None
    usual: float | None = None
    done: int = 0
    total: int | None = None
    left: float | None = None
    history: SearchHistory | None = None
    record: Mapping[str, Any] | None = None

    @property
    def running(self) -> bool:
        """Updates came when they were due."""
        return not self.finished and self.silence is not None and self.silence <= PATIENCE_S + 2 * (self.usual or 0.0)


@dataclass(frozen=True)
class Several:
    """Several runs in one folder.

    Args:
        folder: the folder.
        kind: ``runs``, ``comparison`` or ``quickstart``.
        parts: by name, below the folder; a text for one that has not begun or cannot be read.
        record: of a comparison or of a quickstart's timing, None before the end.
    """

    folder: Path
    kind: str
    parts: Mapping[str, Standing | str]
    record: Mapping[str, Any] | None = None

    @property
    def runs(self) -> list[Standing]:
        """Those that have begun and can be read, latest update first."""
        return sorted((part for part in self.parts.values() if isinstance(part, Standing)), key=_silence)

    @property
    def finished(self) -> bool:
        """Nothing more is to come: the record of the whole is there, or each separate run is finished."""
        if self.kind != "runs":
            return self.record is not None
        return len(self.runs) == len(self.parts) and all(run.finished for run in self.runs)


def look(folder: Path, now: float | None = None) -> Standing | Several | str:
    """Read how the runs in a folder stand.

    Args:
        folder: of a run, or above several.
        now: seconds since the epoch.

    Returns:
        A text for a search that has begun and written nothing yet.

    Raises:
        FileNotFoundError: if there is no run in it.
        ValueError: if a file of a single run is damaged.
    """
    now = time.time() if now is None else now
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; {EXPECTED}")
    names = [path.relative_to(folder) for path in find_runs(folder)]
    if not names:
        raise FileNotFoundError(f"{folder} holds no run; {EXPECTED}")
    if names == [Path()]:
        return _read(folder, now)
    parts: dict[str, Standing | str] = {}
    for name in names:
        try:
            parts[str(name)] = _read(folder / name, now)
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            parts[str(name)] = "cannot be read"  # watching its own folder says why
    if "supernet" in parts and set(parts) <= set(QUICKSTART):
        steps = {name: parts.get(name, "waiting") for name in QUICKSTART}
        return Several(folder, "quickstart", steps, _record(folder / "timing.json", "timing"))
    record = _record(folder / "compare.json", "search comparison")
    if record or all(_is_compared(name) for name in names):
        order = list(record["strategies"]) if record else []
        names.sort(key=lambda name: (order.index(name.parts[0]) if name.parts[0] in order else -1, name))
        return Several(folder, "comparison", {str(name): parts[str(name)] for name in names}, record)
    return Several(folder, "runs", dict(sorted(parts.items(), key=lambda part: _silence(part[1]))))


def find_runs(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Folders of trainings and searches, in a folder and below; a folder within one of them is a part of it."""
    if (folder / LEDGER).is_file() or Run(folder).is_training:
        yield folder
    elif depth:
        try:
            inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        except PermissionError:
            return
        for path in inner:
            yield from find_runs(path, depth - 1)


def _read(folder: Path, now: float) -> Standing | str:
    return _read_search(folder, now) if (folder / LEDGER).is_file() else _read_training(Run(folder), now)


def _read_training(run: Run, now: float) -> Standing:
    """By its progress, or by its record where it was trained before progress was recorded."""
    progress, record = run.progress, run.record
    if progress is None:
        if record is None:
            return Standing(run, False)
        return Standing(run, True, now - _ended(record), done=1, total=1, record=record)
    done, total, usual = (progress[name] for name in ("iteration", "iterations", "usual_interval"))
    silence, left = now - progress["updated"], progress["seconds_left"]
    if left is not None:
        left = max(0.0, left - silence)
    return Standing(run, progress["finished"], silence, usual, done, total, left, record=record)


def _read_search(folder: Path, now: float) -> Standing | str:
    """By its ledger; finished by a record of no more evaluations than the ledger has."""
    lines, _ = read_lines(folder / LEDGER)
    if not lines:
        return "a search has begun and written nothing yet"
    # The oldest ledgers do not say the stages; the text of a scheme does.
    stages = lines[0].get("stages") or [len(stage) for line in lines[1:2] for stage in str(line["scheme"]).split("-")]
    history = read_search(folder / LEDGER, stages or None)
    done, result = len(history.evaluations), folder / "search.json"
    record = read_record(result) if result.exists() else None
    if record and record["evaluations"] <= done:
        total = record["evaluations"]
        return Standing(Run(folder), True, now - _ended(record), None, done, total, None, history, record)
    own = [float(line.get("seconds", 0.0)) for line in lines[1:] if isinstance(line["step"], int)][-50:]
    pace = fmean(own) if own else 0.0
    last = float(lines[-1].get("seconds", 0.0))  # finalists come one by one, the lines of a step together
    usual = max(last, pace * done / (max(history.steps) + 1)) if own else None
    silence, total = now - (folder / LEDGER).stat().st_mtime, _budget(history.key)
    left = pace * (total - done) if own and total is not None else None
    return Standing(Run(folder), False, silence, usual, done, total, left, history, record)


def _budget(key: Mapping[str, Any]) -> int | None:
    """Evaluations that a search has in all; None where its strategy cannot be built here to ask it."""
    settings = key.get("strategy", {})
    if settings.get("type") == "darts":
        return 1
    try:
        options = {name: value for name, value in settings.items() if name != "storage"}  # which may be far away
        return build_strategy(options, key["stages"], key["seed"]).evaluations
    except (ImportError, KeyError, TypeError, ValueError):
        return settings.get("evaluations")


def _record(path: Path, kind: str) -> Mapping[str, Any] | None:
    """A record of a kind; None where there is none, or another program's file of that name."""
    try:
        record = read_record(path)
    except (ValueError, OSError):
        return None
    return record if record.get("kind") == kind else None


def _is_compared(name: Path) -> bool:
    """Whether a run is where ``ean search compare`` puts it: in ``STRATEGY/seed_K``, DARTS' training below."""
    strategy, seed = (*name.parts, "")[:2]
    return seed.startswith("seed_") and (strategy in STRATEGIES.module_dict or strategy == "darts")


def _silence(part: Standing | str) -> float:
    """To sort by: parts that cannot be read first, those that say nothing last."""
    if isinstance(part, str):
        return -1.0
    return float("inf") if part.silence is None else part.silence


def _ended(record: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(record["finished"]).timestamp()

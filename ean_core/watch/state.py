"""State of runs, read from the files in their folders: ``progress.json``, records, ledgers."""

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
from ean_core.runs.folder import TIMING, Run
from ean_core.search.ledger import read_lines
from ean_core.search.strategy import STRATEGIES, build_strategy

LEDGER = "ledger.jsonl"
#: A run counts as stopped after twice its usual update interval plus this time without an update.
PATIENCE_S = 60.0
#: Levels below a folder that are searched for runs.
DEPTH = 5
#: Networks and search of a quickstart, in order; timing comes last.
QUICKSTART = ("supernet", "search", "vanilla", "share-full", "ean")
EXPECTED = (
    "give the folder of a training, a search, a comparison or a quickstart, such as work_dirs/resnet20_se_cifar100, or "
    "a parent folder, such as work_dirs"
)


@dataclass(frozen=True)
class Standing:
    """State of a training or a search.

    Args:
        run: its folder.
        finished: whether it has reported its end.
        silence: seconds since its last update; None if unknown.
        usual: seconds between two updates, if there were several.
        done: iterations or evaluations completed.
        total: iterations or evaluations planned; None if unknown.
        left: estimated seconds left at the pace so far; None if unknown.
        history: ledger of a search; None for a training.
        record: record written at its end.
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
        """Whether the last update is recent enough."""
        return not self.finished and self.silence is not None and self.silence <= PATIENCE_S + 2 * (self.usual or 0.0)


@dataclass(frozen=True)
class Several:
    """Several runs in one folder.

    Args:
        folder: the folder.
        kind: ``runs``, ``comparison`` or ``quickstart``.
        parts: runs by path relative to the folder; a text for one that has not started or cannot be read.
        record: record of a comparison, or of a quickstart's timing; None before the end.
    """

    folder: Path
    kind: str
    parts: Mapping[str, Standing | str]
    record: Mapping[str, Any] | None = None

    @property
    def runs(self) -> list[Standing]:
        """Runs that have started and can be read, latest update first."""
        return sorted((part for part in self.parts.values() if isinstance(part, Standing)), key=_silence)

    @property
    def finished(self) -> bool:
        """Whether everything is finished: the overall record exists, or each separate run is finished."""
        if self.kind != "runs":
            return self.record is not None
        return len(self.runs) == len(self.parts) and all(run.finished for run in self.runs)


def look(folder: Path, now: float | None = None) -> Standing | Several | str:
    """Read the state of the runs in a folder.

    Args:
        folder: folder of a run, or a parent of several.
        now: current time in seconds since the epoch.

    Returns:
        The state; a text for a search that has started but written nothing yet.

    Raises:
        FileNotFoundError: if there is no run in it.
        ValueError: if a file of a single run is damaged.
    """
    now = time.time() if now is None else now
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; {EXPECTED}")
    names = [path.relative_to(folder) for path in find_runs(folder)]
    if not names:
        raise FileNotFoundError(f"{folder} contains no run; {EXPECTED}")
    if names == [Path()]:
        return _read(folder, now)
    parts: dict[str, Standing | str] = {}
    for name in names:
        try:
            parts[str(name)] = _read(folder / name, now)
        except (ValueError, OSError):
            parts[str(name)] = "cannot be read"  # watching that folder alone shows why
    if "supernet" in parts and set(parts) <= set(QUICKSTART):
        steps = {name: parts.get(name, "waiting") for name in QUICKSTART}
        return Several(folder, "quickstart", steps, _record(folder / TIMING, "timing"))
    record = _record(folder / "compare.json", "search comparison")
    if record or all(_is_compared(name) for name in names):
        order = list(record["strategies"]) if record else []
        names.sort(key=lambda name: (order.index(name.parts[0]) if name.parts[0] in order else -1, name))
        return Several(folder, "comparison", {str(name): parts[str(name)] for name in names}, record)
    return Several(folder, "runs", dict(sorted(parts.items(), key=lambda part: _silence(part[1]))))


def find_runs(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Find the folders of trainings and searches in a folder and below; folders inside a run belong to that run."""
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
    try:
        return _read_search(folder, now) if (folder / LEDGER).is_file() else _read_training(Run(folder), now)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"the records of the run in {folder} are damaged: {error!r}") from error


def _read_training(run: Run, now: float) -> Standing:
    """Read a training from its progress file, or from its record for runs older than progress files."""
    progress, record = run.progress, run.record
    if progress is None and record is None:
        return Standing(run, False)
    _ = run.settings, run.test, run.validations  # a damaged file fails here, not while it is shown
    if progress is None:
        assert record is not None
        return Standing(run, True, now - _ended(run.folder, record), done=1, total=1, record=record)
    done, total, usual = (progress[name] for name in ("iteration", "iterations", "usual_interval"))
    silence, left = now - progress["updated"], progress["seconds_left"]
    if left is not None:
        left = max(0.0, left - silence)
    return Standing(run, progress["finished"], silence, usual, done, total, left, record=record)


def _read_search(folder: Path, now: float) -> Standing | str:
    """Read a search from its ledger; it is finished if its record does not count more evaluations than the ledger."""
    lines, _ = read_lines(folder / LEDGER)
    if not lines:
        return "search started, nothing written yet"
    # The oldest ledgers do not record the stages; they follow from a scheme's text.
    stages = lines[0].get("stages") or [len(stage) for line in lines[1:2] for stage in str(line["scheme"]).split("-")]
    history = read_search(folder / LEDGER, stages or None)
    done, result = len(history.evaluations), folder / "search.json"
    record = read_record(result) if result.exists() else None
    if record and record["evaluations"] <= done:
        total = record["evaluations"]
        return Standing(Run(folder), True, now - _ended(folder, record), None, done, total, None, history, record)
    own = [float(line.get("seconds", 0.0)) for line in lines[1:] if isinstance(line["step"], int)][-50:]
    pace = fmean(own) if own else 0.0
    last = float(lines[-1].get("seconds", 0.0))  # finalists are written one by one, the lines of a step together
    usual = max(last, pace * done / (max(history.steps) + 1)) if own else None
    silence, total = now - (folder / LEDGER).stat().st_mtime, _budget(history.key)
    left = pace * (total - done) if own and total is not None else None
    return Standing(Run(folder), False, silence, usual, done, total, left, history, record)


def _budget(key: Mapping[str, Any]) -> int | None:
    """Total number of evaluations of a search; None if its strategy cannot be built here."""
    settings = key.get("strategy", {})
    if settings.get("type") == "darts":
        return 1
    try:
        options = {name: value for name, value in settings.items() if name != "storage"}  # it may be remote
        return build_strategy(options, key["stages"], key["seed"]).evaluations
    except (ImportError, KeyError, TypeError, ValueError):
        return settings.get("evaluations")


def _record(path: Path, kind: str) -> Mapping[str, Any] | None:
    """Read a record of a kind; None if it is missing, or the file is something else."""
    try:
        record = read_record(path)
    except (ValueError, OSError):
        return None
    return record if record.get("kind") == kind else None


def _is_compared(name: Path) -> bool:
    """Whether a run lies where ``ean search compare`` puts it: ``STRATEGY/seed_K``, or DARTS' training below that."""
    strategy, seed = (*name.parts, "")[:2]
    return seed.startswith("seed_") and (strategy in STRATEGIES.module_dict or strategy == "darts")


def _silence(part: Standing | str) -> float:
    """Sort key: unreadable parts first, then by time since the last update, unknown last."""
    if isinstance(part, str):
        return -1.0
    return float("inf") if part.silence is None else part.silence


def _ended(folder: Path, record: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(record["finished"]).timestamp()
    except ValueError as error:
        raise ValueError(f"the records of the run in {folder} are damaged: {error}") from error

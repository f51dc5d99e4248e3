"""What the files of a run say of it, while it is running as well as afterwards."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from ean_core.common.record import read_record
from ean_core.report.search import SearchHistory, read_search
from ean_core.runs.logs import read_starts
from ean_core.runs.settings import read_settings
from ean_core.search.ledger import read_lines
from ean_core.search.strategy import STRATEGIES, build_strategy
from ean_core.show.table import headline

#: Without news for so long beyond twice the usual interval, a run is no longer called running.
PATIENCE_S = 60.0
#: How far below a folder runs are looked for.
DEPTH = 5
#: What a quickstart makes, in that order, before it times the networks.
QUICKSTART = ("supernet", "search", "vanilla", "share-full", "ean")
EXPECTED = (
    "give the folder of a training, a search, a comparison or a quickstart, such as work_dirs/resnet20_se_cifar100, or "
    "one above them, such as work_dirs"
)
#: mmengine's name of a start: when that was, in local time.
_START = re.compile(r"\d{8}_\d{6}")
#: Metrics that are the better the lower they are.
_ERROR = re.compile(r"mae|mse|nae|loss|err", re.IGNORECASE)


@dataclass(frozen=True)
class State:
    """Whether a run goes on, as far as files can tell.

    Args:
        finished: it has written its record, and nothing since.
        silence: seconds since its last news.
        usual: seconds between two of them, where there were several.
    """

    finished: bool
    silence: float
    usual: float | None = None

    @property
    def running(self) -> bool:
        """News came when they were due."""
        return not self.finished and self.silence <= PATIENCE_S + 2 * (self.usual or 0.0)


@dataclass(frozen=True)
class TrainingRun:
    """A training: what mmengine logged, the settings of its last start, and its records.

    Args:
        folder: of the run.
        now: when this was read, in seconds since the epoch.
        settings: of the last start; empty where no file has them.
        record: ``record.json``, None before the end.
        test: metrics of ``test.json``, empty where there is none.
        starts: when each start was, and what it logged, oldest first.
    """

    folder: Path
    now: float
    settings: Mapping[str, Any]
    record: Mapping[str, Any] | None
    test: Mapping[str, float]
    starts: Mapping[Path, list[Mapping[str, Any]]]

    @cached_property
    def iterations(self) -> list[Mapping[str, Any]]:
        """The lines of iterations, without those that a killed start wrote beyond where the next went on."""
        kept: list[Mapping[str, Any]] = []
        for lines in self.starts.values():
            own = [line for line in lines if "loss" in line]
            if own:
                kept = [line for line in kept if line["step"] < own[0]["step"]] + own
        return kept

    @cached_property
    def validations(self) -> dict[int, dict[str, float]]:
        """By epoch, the metrics of its validation."""
        found: dict[int, dict[str, float]] = {}
        for lines in self.starts.values():
            for line in lines:
                if "loss" not in line:
                    found[line["step"]] = {k: v for k, v in line.items() if k not in ("step", "time", "data_time")}
        record = self.record or {}
        if record.get("validation") and "validations" not in record:  # of older versions
            found.setdefault(record["epochs"], record["validation"])
        for line in record.get("validations", []):
            found.setdefault(line["epoch"], {name: value for name, value in line.items() if name != "epoch"})
        return {epoch: metrics for epoch, metrics in sorted(found.items()) if metrics}

    @property
    def best(self) -> int | None:
        """The epoch of the best validation, by the metric that its checkpoint is chosen by, or its task's; None where
        no validation has a metric."""
        names = [*_several(self.hooks.get("checkpoint", {}).get("save_best"))]
        names += [headline(metrics)[0] for metrics in self.validations.values()]
        for name in names:
            measured = {epoch: metrics[name] for epoch, metrics in self.validations.items() if name in metrics}
            if measured:
                return (min if self._less_is_better(name) else max)(measured, key=measured.__getitem__)
        return None

    def _less_is_better(self, metric: str) -> bool:
        """By the rule of the checkpoints, or by what the metric is called."""
        chosen = self.hooks.get("checkpoint", {})
        rules = dict(zip(_several(chosen.get("save_best")), _several(chosen.get("rule")), strict=False))
        rule = rules.get(metric) or next(iter(rules.values()), None)
        return rule == "less" if rule else bool(_ERROR.search(metric))

    @property
    def hooks(self) -> Mapping[str, Any]:
        """The config's hooks."""
        return self.settings.get("default_hooks") or {}

    @property
    def config(self) -> str:
        """The config's name."""
        known = (self.record or {}).get("config")
        return known or next((path.stem for path in sorted(self.folder.glob("*.py"))), self.folder.name)

    @property
    def epochs(self) -> int | None:
        """How many it is to have."""
        epochs = (self.settings.get("train_cfg") or {}).get("max_epochs")
        return epochs or (self.record or {}).get("epochs")

    @property
    def epoch(self) -> int:
        """The epoch of the last line, from 1; 0 before there is one."""
        return self.iterations[-1].get("epoch", 0) if self.iterations else 0

    @property
    def step(self) -> int:
        """The iteration of the last line; 0 before there is one."""
        return self.iterations[-1]["step"] if self.iterations else 0

    @cached_property
    def epoch_length(self) -> int | None:
        """Iterations in an epoch; None where neither two epochs nor the log file say it."""
        first = {line["epoch"]: line["step"] for line in reversed(self.iterations)}
        low, high = (min(first), max(first)) if first else (0, 0)
        if high > low:
            return round((first[high] - first[low]) / (high - low))
        if self.record is not None and self.step:
            return round(self.step / self.epoch)
        text = tail(self._log) if self._log else ""
        found = re.findall(r"Epoch\(train\)\s+\[\s*\d+\]\[\s*\d+/(\d+)\]", text)
        return int(found[-1]) if found else None

    @property
    def total(self) -> int | None:
        """Iterations of the whole training."""
        return self.epoch_length * self.epochs if self.epoch_length and self.epochs else None

    @property
    def images_per_second(self) -> float | None:
        """Of the last lines; of the whole training once that is over."""
        if self.state.finished and self.record:
            return self.record["images_per_second"]
        seconds = self.iterations[-1].get("time") if self.iterations else None
        batch = (self.settings.get("train_dataloader") or {}).get("batch_size")
        if not seconds or not batch:
            return None
        processes = re.search(r"GPU number: (\d+)", tail(self._log, from_start=True)) if self._log else None
        return batch * max(1, int(processes[1]) if processes else 1) / seconds

    @property
    def began(self) -> float | None:
        """When the last start was, in seconds since the epoch."""
        return _began(self._last) if self._last else None

    @property
    def elapsed(self) -> float | None:
        """Seconds since the last start, until now or until the last news; those of all epochs once all are done."""
        if self.state.finished and self.record:
            return self.record["seconds"]
        if self.began is None:
            return None
        return (self.now if self.state.running else self.now - self.state.silence) - self.began

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes, at the pace of this start, validations included; None where that is unknown."""
        if not self.state.running or self.began is None or not self.total or not self.iterations or not self._last:
            return None
        own = [line for line in self.starts.get(self._last, ()) if "loss" in line]
        if not own:
            return None
        before = (own[0]["epoch"] - 1) * (self.epoch_length or 0)
        if own[-1]["epoch"] == own[0]["epoch"]:  # what starting took would still weigh too much
            pace = own[-1].get("time")
        else:
            pace = (_news([self._last]) - self.began) / max(1, own[-1]["step"] - before)
        return pace * (self.total - self.step) if pace else None

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint."""
        found = [path for path in self.folder.glob("*.pth") if path.name.startswith(("epoch_", "best_"))]
        return max(found, key=_news_of, default=None)

    @cached_property
    def state(self) -> State:
        """Finished by a record of as many epochs as the settings ask for, with no start since that trained."""
        silence = self.now - _news([*self.starts, *([self._log] if self._log else []), *self.folder.glob("*.pth")])
        if self.record is not None:
            ended = datetime.fromisoformat(self.record["finished"]).timestamp()
            later = [path for path in self.starts if (_began(path) or 0) > ended and self.starts[path]]
            if not later and self.record["epochs"] >= (self.epochs or 0):
                return State(True, self.now - ended)
        last = self.iterations[-2:]
        usual = last[1].get("time", 0.0) * (last[1]["step"] - last[0]["step"]) if len(last) == 2 else None
        return State(False, silence, usual)

    @property
    def _last(self) -> Path | None:
        return max((path for path in self.starts if _began(path)), default=None)

    @property
    def _log(self) -> Path | None:
        folder = self._last.parent.parent if self._last else None
        log = folder / f"{folder.name}.log" if folder else None
        return log if log and log.exists() else None


@dataclass(frozen=True)
class SearchRun:
    """A search: its ledger and, in the end, its record.

    Args:
        folder: of the run.
        now: when this was read, in seconds since the epoch.
        history: what the ledger says.
        seconds: that each line of the ledger took, with its step.
        record: ``search.json``, None before the end.
    """

    folder: Path
    now: float
    history: SearchHistory
    seconds: Sequence[tuple[int | str, float]]
    record: Mapping[str, Any] | None

    @property
    def strategy(self) -> str:
        """Its name."""
        return self.history.key.get("strategy", {}).get("type", "unknown")

    @property
    def done(self) -> int:
        """Evaluations so far."""
        return len(self.history.evaluations)

    @cached_property
    def budget(self) -> int | None:
        """Evaluations in all; None where the strategy cannot be built here to ask it."""
        if self.state.finished and self.record:
            return self.record["evaluations"]
        settings = self.history.key.get("strategy", {})
        if self.strategy == "darts":
            return 1
        try:
            options = {name: value for name, value in settings.items() if name != "storage"}  # which may be far away
            return build_strategy(options, self.history.key["stages"], self.history.key["seed"]).evaluations
        except (ImportError, KeyError, TypeError, ValueError):
            return settings.get("evaluations")

    @property
    def finalists(self) -> tuple[int, int] | None:
        """How many of the best are scored once more, and at least how many there will be; None before there are."""
        if not self.history.finalists:
            return None
        wanted = self.history.key.get("finalists", {}).get("count", 0)
        most = min(wanted, self.history.unique)
        return len(self.history.finalists), max(len(self.history.finalists), most)

    @property
    def best_rewards(self) -> list[float]:
        """The best reward so far, after each evaluation."""
        return list(accumulate((evaluation.reward for evaluation in self.history.evaluations), max))

    @property
    def probabilities(self) -> list[float]:
        """The mean probability of what a controller sampled, by step; empty where there is no controller."""
        name = "mean_probability"
        return [info[name] for _, info in sorted(self.history.infos.items()) if name in info]

    @property
    def left(self) -> float | None:
        """Seconds of scoring that are left of the budget, at the pace of the last evaluations, repetitions included."""
        own = [seconds for step, seconds in self.seconds if isinstance(step, int)]
        if not self.state.running or self.budget is None or not own:
            return None
        return fmean(own[-50:]) * (self.budget - self.done)

    @cached_property
    def state(self) -> State:
        """Finished by a record of no more evaluations than the ledger has."""
        ledger = self.folder / "ledger.jsonl"
        if self.record is not None and self.record["evaluations"] <= self.done:
            return State(True, self.now - datetime.fromisoformat(self.record["finished"]).timestamp())
        steps = [
            sum(s for _, s in step) for name, step in groupby(self.seconds, itemgetter(0)) if isinstance(name, int)
        ]
        steps += [seconds for name, seconds in self.seconds if not isinstance(name, int)]  # a line at a time
        return State(False, self.now - _news([ledger]), fmean(steps[-5:]) if steps else None)


Run = TrainingRun | SearchRun


@dataclass(frozen=True)
class Runs:
    """Several runs in one folder.

    Args:
        folder: of them all.
        kind: ``runs``, ``comparison`` or ``quickstart``.
        parts: by name, below the folder; None for what has not begun, a text for what cannot be read.
        record: of a comparison or of a quickstart's timing, None before the end.
    """

    folder: Path
    kind: str
    parts: Mapping[str, Run | str | None]
    record: Mapping[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Nothing more is to come: there is the record of the whole, or, of separate runs, each one's."""
        if self.kind != "runs":
            return self.record is not None
        return all(isinstance(run, Run) and run.state.finished for run in self.parts.values())

    @property
    def running(self) -> list[Run]:
        """Those that go on, newest news first."""
        going = [run for run in self.parts.values() if isinstance(run, Run) and run.state.running]
        return sorted(going, key=lambda run: run.state.silence)


def look(folder: Path, now: float | None = None) -> Run | Runs | None:
    """What is in a folder, as it stands; None where a run has begun and written nothing yet.

    Args:
        folder: of a run, or of several.
        now: seconds since the epoch.

    Raises:
        FileNotFoundError: if there is no run in it.
        ValueError: if a file of a single run is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; {EXPECTED}")
    names = [path.relative_to(folder) for path in find_runs(folder)]
    if not names:
        raise FileNotFoundError(f"{folder} holds no run; {EXPECTED}")
    if names == [Path()]:
        return read_run(folder, now)
    parts: dict[str, Run | str | None] = {}
    for name in names:
        try:
            parts[str(name)] = read_run(folder / name, now)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            parts[str(name)] = f"cannot be read: {error}"
    if "supernet" in parts and set(parts) <= set(QUICKSTART):
        return Runs(folder, "quickstart", {n: parts.get(n) for n in QUICKSTART}, _of(folder / "timing.json", "timing"))
    record = _of(folder / "compare.json", "search comparison")
    if record is not None or all(_of_comparison(name) for name in names):
        order = list(record["strategies"]) if record else []
        ranked = sorted(
            parts, key=lambda name: (order.index(first) if (first := Path(name).parts[0]) in order else -1, name)
        )
        return Runs(folder, "comparison", {name: parts[name] for name in ranked}, record)
    return Runs(folder, "runs", {name: parts[name] for name in sorted(parts, key=lambda name: _age(parts[name]))})


def _of_comparison(run: Path) -> bool:
    """Whether a run lies where ``ean search compare`` puts it: in ``STRATEGY/seed_K``, DARTS' training below."""
    return (*run.parts, "")[1].startswith("seed_") and (
        run.parts[0] in STRATEGIES.module_dict or run.parts[0] == "darts"
    )


def _age(run: Run | str | None) -> float:
    return run.state.silence if isinstance(run, Run) else 0.0


def find_runs(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Folders of trainings and searches, in a folder and below; what lies in such a one is a part of it."""
    if is_search(folder) or is_training(folder):
        yield folder
        return
    if not depth:
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.startswith("."):
            try:
                yield from find_runs(Path(entry.path), depth - 1)
            except PermissionError:
                continue


def is_search(folder: Path) -> bool:
    """Whether a search has written its ledger here."""
    return (folder / "ledger.jsonl").is_file()


def is_training(folder: Path) -> bool:
    """Whether a training was started here; a folder that only tests were run in is none."""
    if any(folder.glob("*/vis_data/scalars.json")):
        return True
    if _of(folder / "record.json", "training"):
        return True
    tested = (folder / "test.json").exists()
    return not tested and any(_START.fullmatch(path.parent.parent.name) for path in folder.glob("*/vis_data/config.py"))


def read_run(folder: Path, now: float | None = None) -> Run | None:
    """The run in a folder, as it stands; None for a search whose ledger has no whole line yet.

    Args:
        folder: one that :func:`find_runs` gave.
        now: seconds since the epoch.

    Raises:
        OSError: if the folder, or a part of it, is gone.
        ValueError: if a file of it is damaged.
    """
    now = time.time() if now is None else now
    if not is_search(folder):
        return _read_training(folder, now)
    lines, _ = read_lines(folder / "ledger.jsonl")
    if not lines:
        return None
    history = read_search(folder / "ledger.jsonl", _stages(lines))
    seconds = [(line["step"], float(line.get("seconds", 0.0))) for line in lines[1:]]
    return SearchRun(folder, now, history, seconds, _read(folder / "search.json"))


def _stages(lines: Sequence[Mapping[str, Any]]) -> Sequence[int] | None:
    """Of ledgers whose key does not say them, as the oldest do not: by the text of a scheme."""
    given = lines[0].get("stages")
    return given or (list(map(len, str(lines[1]["scheme"]).split("-"))) if len(lines) > 1 else None)


def _read_training(folder: Path, now: float) -> TrainingRun:
    starts = dict(read_starts(folder))
    for path in sorted(folder.glob("*/vis_data/config.py")):  # of starts that have not logged anything yet
        name = path.parent.parent.name
        a_test = (path.parent.parent / f"{name}.json").exists()
        if _START.fullmatch(name) and not a_test:
            starts.setdefault(path.with_name("scalars.json"), [])
    starts = {path: starts[path] for path in sorted(starts, key=lambda path: _began(path) or 0.0)}
    record = _read(folder / "record.json")
    test = _read(folder / "test.json")
    newest = max((path for path in starts if _began(path)), default=None)
    settings: Mapping[str, Any] = (record or {}).get("settings") or {}
    config = newest.with_name("config.py") if newest else None
    if config and config.exists():
        settings = read_settings(config.read_text(encoding="utf-8")).to_dict()
    return TrainingRun(folder, now, settings, record, (test or {}).get("metrics", {}), starts)


def _read(path: Path) -> Mapping[str, Any] | None:
    return read_record(path) if path.exists() else None


def _of(path: Path, kind: str) -> Mapping[str, Any] | None:
    """A record of a kind; None where there is none, or something else of that name."""
    try:
        record = _read(path)
    except (ValueError, OSError):
        return None
    return record if record and record.get("kind") == kind else None


def _several(value: Any) -> list[Any]:
    """What mmengine takes one or several of."""
    return [] if value is None else [*value] if isinstance(value, (list, tuple)) else [value]


def _began(scalars: Path) -> float | None:
    """When a start was, by the name of its folder; None for a log from elsewhere."""
    name = scalars.parent.parent.name
    return datetime.strptime(name, "%Y%m%d_%H%M%S").timestamp() if _START.fullmatch(name) else None


def _news(paths: Sequence[Path]) -> float:
    return max(map(_news_of, paths), default=0.0)


def _news_of(path: Path) -> float:
    """When a file was written last; 0 for one that is gone by now."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def tail(path: Path, size: int = 20_000, from_start: bool = False) -> str:
    """The last characters of a text file, or its first ones."""
    with path.open("rb") as file:
        if not from_start:
            file.seek(max(0, path.stat().st_size - size))
        return file.read(size).decode(errors="replace")

"""The trainings behind the zoo: what is done, what comes next, what is left.

    python benchmarks/campaign.py                     # the state, as a table
    python benchmarks/campaign.py run [--until STEP]  # step by step; stopped at any moment, it goes on where it was
    python benchmarks/campaign.py run --jobs 6 --minutes 8  # six steps at once on a GPU, in a piece of eight minutes
    python benchmarks/campaign.py run --gpu           # the steps that take a GPU: ResNet-164, schemes trained alone
    python benchmarks/campaign.py keep                # copies what resumes steps under way, to go on elsewhere
    python benchmarks/campaign.py report              # tables and figures out of the records

A step is a few plain `ean` commands, which `show STEP` prints, and is done when each has left its record in
benchmarks/results/campaign/STEP. The table is made from these records alone, so that whoever has the repository knows
where the campaign stands. `run --small` tries all of it on scikit-learn's digits in minutes, `run --gpu --small` the
steps that take a GPU. On a GPU, classifiers train with their iterations captured (`ean train --capture`).
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import typer
from campaign_groups import scheme_groups
from campaign_report import write_report
from campaign_steps import (
    Alone,
    Command,
    Network,
    Search,
    Step,
    Supernet,
    SupernetUser,
    Timing,
    gpu_plan,
    kind,
    plan,
)
from filelock import FileLock, Timeout

from ean_core.config import DATASETS, load_config, parse_name
from ean_core.data import data_root
from ean_core.record import read_record, training_log, write_record, write_text
from ean_core.report.command import write_report as write_whole_report
from ean_core.report.search import read_search
from ean_core.report.table import headline, print_table
from ean_core.runner import latest_checkpoint
from ean_core.scheme import ConnectionScheme
from ean_core.search.strategy import Evaluation
from tasks.crowd_counting.prepare import read_manifest
from zoo.index import PACKAGED, Index
from zoo.names import VARIANTS, ModelName

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks/results/campaign")
RUNS = Path("work_dirs/campaign")
REPORT = Path("benchmarks/report")
#: The same of the steps that take a GPU, and where schemes to train alone come from.
GPU_RESULTS, GPU_RUNS = Path("benchmarks/results/gpu"), Path("work_dirs/gpu")
COMPARISON = Path("benchmarks/results/search_resnet20_se_cifar100/comparison")
#: What a command leaves in its run's folder that is worth keeping.
KEPT = (
    "record.json",
    "test.json",
    "search.json",
    "ledger.jsonl",
    "front.png",
    "scheme.svg",
    "timing.json",
    "timing.csv",
    "timing.png",
    "timing_blocks_*.json",
    "table[35].json",
    "table[35].md",
    "counts.csv",
    "classes.csv",
    "learning_curve.png",
    "correlation.*",
    "compare.json",
    "comparison.*",
    "convergence.png",
    "distribution.png",
    "finalists.jsonl",
    "scoring_times.json",
    "*/seed_*/ledger.jsonl",
    "*/seed_*/search.json",
)
#: Sizes of steps in a small campaign.
SMALL = {"--schemes": "4", "--epochs": "1", "--evaluations": "12", "--seeds": "2"}
#: What publishing writes in the folder of an index.
PUBLISHED = ("README.md", "model-index.yml", "cards", "figures", "metafiles", "records", "strips", "weights")
#: What resumes a step: the last checkpoint, the one selected so far, remembered scores; in megabytes, together.
STATE, STATE_LIMIT = ("best_*.pth", "*.jsonl", "record.json", "*/seed_*/*.json*"), 8
#: Of the steps that take a GPU, whose states are copied along and not committed.
GPU_STATE_LIMIT = 16


class Campaign:
    """A plan and its state, as the records tell it.

    Args:
        steps: in the order of need.
        results: folder of the records.
        runs: folder of checkpoints and logs.
        index: folder of the zoo's index that networks are published to.
        source: the data set of searches, whose networks start all others.
        epochs: length of each training; the config's by default.
        report: folder of the report on all results, of which this campaign's are a part; none by default.
        page: whether to write a page on this campaign alone, too.
        needs_gpu: whether all steps wait for an NVIDIA GPU.
        groups: schemes to train alone, by where they come from.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        results: Path,
        runs: Path,
        index: Path = PACKAGED,
        source: str = "cifar100",
        epochs: int | None = None,
        report: Path | None = None,
        page: bool = True,
        needs_gpu: bool = False,
        groups: Mapping[str, Sequence[ConnectionScheme]] | None = None,
    ) -> None:
        self.steps, self.results, self.runs, self.index = list(steps), results, runs, index
        self.source, self.epochs, self.report, self.page = source, epochs, report, page
        self.needs_gpu, self.groups = needs_gpu, groups or {}
        self.processes: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._writing = threading.RLock()

    # ------------------------------------------------------------ what steps ask for

    def train(self, config: str, name: str, *options: str) -> Command:
        """The command that trains a config in the folder of a step."""
        options = (*options, *([f"train_cfg.max_epochs={self.epochs}"] if self.epochs else []))
        overrides = ("--cfg-options", *options) if options else ()
        parts = parse_name(config)
        classifies = parts is not None and DATASETS[parts.dataset][1] == "Image Classification"
        ways = ("--amp", *(self.capture if classifies else ()), "--resume")
        arguments = ("train", config, *ways, "--work-dir", str(self.runs / name), *overrides)
        return Command(arguments, "record.json")

    @property
    def capture(self) -> tuple[str, ...]:
        """How classifiers train faster on this machine."""
        return ("--capture",) if has_gpu() else ()

    def shorter(self, size: tuple[str, ...]) -> tuple[str, ...]:
        """Options of a step's size, or those of a small campaign."""
        if not self.epochs:
            return size
        return tuple(SMALL.get(before, word) for before, word in zip(("", *size), size, strict=False))

    def checkpoint(self, name: str) -> Path:
        """The checkpoint that the training of a step ends with or selects."""
        folder = self.runs / name
        record = folder / "record.json"
        best = read_record(record).get("best") if record.is_file() else None
        return folder / best["checkpoint"] if best else latest_checkpoint(folder) or folder / "epoch_N.pth"

    def scheme(self, model: ModelName) -> str:
        """The connections of a model, as a config takes them.

        ``ean`` is the finalist of highest reward that has connections and leaves some out, ``best`` the one of highest
        accuracy that has any, with batch norms re-estimated (``ean search``). Both are ``?`` before the search.
        """
        if model.variant not in ("ean", "best"):
            return "full" if model.variant else "none"
        if model.depth == 50:
            return "ean"
        ledger = self.results / Search(model.attention, self.source, model.depth).name / "ledger.jsonl"
        if not ledger.is_file():
            return "?"
        connected = [each for each in read_search(ledger).finalists if each.scheme.connections]
        if model.variant == "best":
            return str(max(connected, key=lambda each: each.accuracy).scheme)
        return str(chosen(connected).scheme)

    def timing(self, network: Network) -> Path | None:
        """The timing record in which a network occurs, if there is one."""
        name = Timing(network.model.attention or "se", network.model.dataset, network.model.depth).name
        found = (folder / name / "timing.json" for folder in (self.runs, self.results))
        path = next((path for path in found if path.is_file()), None)
        connection = f"{VARIANTS[network.model.variant]}, "
        return path if path and any(connection in key for key in read_record(path)["networks"]) else None

    # ------------------------------------------------------------ the state

    def waits_for(self, step: Step) -> str | None:
        """The step that must be done first, or the data that must be there, if one is not."""
        if self.needs_gpu and not has_gpu():
            return "a GPU"
        if isinstance(step, Network) and step.model.dataset == "shanghaitech_a" and not has_part_a():
            return "all of ShanghaiTech A's training images"
        if isinstance(step, Network) and step.model.depth == 50:
            return None if has_imagenet_weights() else "torchvision's weights of ResNet-50 in the cache of torch.hub"
        needed: list[Step] = []
        if isinstance(step, SupernetUser):
            needed.append(step.supernet)
        if isinstance(step, Timing) or (isinstance(step, Network) and step.model.variant in ("ean", "best")):
            attention = step.attention if isinstance(step, Timing) else step.model.attention
            depth = step.depth if isinstance(step, Timing) else step.model.depth
            needed.append(Search(attention, self.source, depth))
        if isinstance(step, Network) and step.model.task != "Image Classification":
            needed.append(Network(replace(step.model, dataset=self.source)))
        waits = next((each.name for each in needed if not self.done(each)), None)
        if waits is None and isinstance(step, SupernetUser) and not self.has_checkpoint(step.supernet):
            return f"the checkpoint of {step.supernet.name}, or that one's training without its record.json"
        return waits

    def has_checkpoint(self, supernet: Supernet) -> bool:
        """Whether a supernet's weights are here."""
        places = (self.runs / supernet.name, self.results / supernet.name / "state")
        return any(latest_checkpoint(place) for place in places)

    def done(self, step: Step) -> bool:
        """Whether each command of a step has left its record."""
        return all(self.has(step, command) for command in step.commands(self))

    def has(self, step: Step, command: Command) -> bool:
        """Whether a command of a step has left its record, or for publishing, an entry of that record's training."""
        folder = self.results / step.name
        if command.record != "published.json":
            return (folder / command.record).is_file()
        if not (isinstance(step, Network) and (folder / "record.json").is_file()):
            return False
        entry = Index(self.index).entries.get(step.model) if (self.index / "model-index.yml").is_file() else None
        finished = read_record(folder / "record.json")["finished"]
        card = self.index / "cards" / f"{step.model}.md"  # the last thing that publishing writes
        return entry is not None and entry.metadata["Finished"] == finished and card.is_file()

    def next(self, running: Collection[Step] = (), failed: Collection[Step] = ()) -> Step | None:
        """The first step that is not done, is not running, did not fail and waits for none; None where there is none,
        and where one that measures times runs or comes next, which takes the machine for itself."""
        if any(isinstance(step, Timing) for step in running):
            return None
        ready = (s for s in self.planned if s not in running and s not in failed and not self.done(s))
        first = next((step for step in ready if self.waits_for(step) is None), None)
        return None if running and isinstance(first, Timing) else first

    @property
    def planned(self) -> list[Step]:
        """The steps, less a best network that is another one of them by its connections."""

        def twin(step: Step) -> bool:
            if not isinstance(step, Network) or step.model.variant != "best":
                return False
            scheme = self.scheme(step.model)
            return scheme in ("?", self.scheme(replace(step.model, variant="ean"))) or "0" not in scheme

        return [step for step in self.steps if not twin(step)]

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """Commands that ran, with the seconds they took; a line that a kill has cut off is left out."""
        path = self.results / "log.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}\n")]

    def spent(self, step: Step) -> float:
        """Seconds that a step took so far: of trainings by their records, of other commands by the log."""
        record = self.results / step.name / "record.json"
        own = [line for line in self.log if line["step"] == step.name]
        if record.is_file():
            return float(read_record(record)["seconds"]) + sum(
                line["seconds"] for line in own if line["record"] != "record.json"
            )
        return float(sum(line["seconds"] for line in own))

    def expected(self, step: Step) -> float:
        """Seconds that a step takes as a whole: as long as the last ones of its kind did, or a guess."""
        took = []
        for other in self.steps:
            lines = [line for line in self.log if line["step"] == other.name and not line["code"]]
            if kind(other) == kind(step) and self.done(other) and any(line["whole"] for line in lines):
                took.append(sum(line["seconds"] for line in lines))
        records = [self.results / each.name / "record.json" for each in self.steps if kind(each) == kind(step)]
        took = took or [read_record(path)["seconds"] for path in records if path.is_file()]
        return float(statistics.median(took[-3:])) if took else 60 * step.minutes

    def progress(self, step: Step) -> float:
        """How much of a step is done, in ``[0, 1]``."""
        if self.done(step):
            return 1.0
        if isinstance(step, (Supernet, Network, Alone)):
            for folder in (self.runs / step.name, self.results / step.name / "state"):
                if epochs_of(folder):
                    total = self.epochs or load_config(step.config).train_cfg.max_epochs
                    return min(0.99, epochs_of(folder) / total)
        return 0.0

    # ------------------------------------------------------------ running

    def run(self, step: Step) -> None:
        """Run what is left of a step, and keep its records.

        Raises:
            RuntimeError: if a command fails.
        """
        self.restore(step.name)
        if isinstance(step, SupernetUser):
            self.restore(step.supernet.name)
        count = len(list(step.commands(self)))
        for number in range(count):
            command = list(step.commands(self))[number]  # anew: later ones depend on what earlier ones leave
            if self.has(step, command):
                continue
            self.say(f"{step.name}: {command}")
            whole = not self.progress(step)
            start = time.monotonic()
            output = self.runs / step.name / "output.txt"
            code = self.execute(command, output)
            entry = {"step": step.name, "record": command.record, "whole": whole}
            self.write_down({**entry, "seconds": round(time.monotonic() - start, 1), "code": code})
            if code:
                stopped = code in (130, -signal.SIGINT, -signal.SIGTERM)
                how = "stopped" if stopped else f"ended with {code}: {last_line(output)}\nsee {output}"
                raise RuntimeError(f"{command}\n{how}; run again to go on from here")
            self.collect(step)

    def execute(self, command: Command, output: Path) -> int:
        """Run a command to its end, its output appended to a file."""
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a") as file:
            with self._writing:
                if self._stopped:
                    return -signal.SIGTERM
                process = subprocess.Popen(
                    [sys.executable, "-m", "tasks.cli", *command.arguments],
                    env={**os.environ, "EAN_ZOO_INDEX": str(self.index)},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    preexec_fn=die_with_parent if sys.platform == "linux" else None,
                )
                self.processes.add(process)
            code = process.wait()
            self.processes.discard(process)
            return code

    def stop(self) -> None:
        """End the commands that run; no more are begun."""
        with self._writing:
            self._stopped = True
            for process in list(self.processes):
                process.terminate()

    def settle(self) -> None:
        """Have kept states follow from what is done: a step may have been stopped before they did."""
        self._list_groups()
        for step in self.planned:
            state = self.results / step.name / "state"
            if isinstance(step, Supernet) and self.done(step):
                self.keep_supernet(step)
            elif self.done(step):
                shutil.rmtree(state, ignore_errors=True)

    def _list_groups(self) -> None:
        """Write down which schemes are trained alone, and where they come from."""
        alone = next((step for step in self.steps if isinstance(step, Alone)), None)
        if alone is None:
            return
        path = self.results / alone.folder / "schemes.json"
        groups = {name: [str(scheme) for scheme in schemes] for name, schemes in self.groups.items()}
        if not path.is_file() or read_record(path)["groups"] != groups:
            write_record(path, kind="schemes trained alone", config=alone.config, seed=alone.seed, groups=groups)

    def collect(self, step: Step) -> None:
        """Copy what a step's commands left to the results."""
        source, target = self.runs / step.name, self.results / step.name
        with self._writing:
            target.mkdir(parents=True, exist_ok=True)
            for pattern in KEPT:
                for path in source.glob(pattern):
                    copy_file(path, target / path.relative_to(source))
            log = training_log(source)
            if log:
                write_text(target / "log.jsonl", log)
            if self.page:
                write_page(self)

    def keep(self, step: Step) -> list[Path]:
        """Copy what resumes a step into its results, so that it can go on in another checkout.

        Returns:
            The copies; none where there is nothing yet, or more than a repository should hold.
        """
        source, target = self.runs / step.name, self.results / step.name / "state"
        latest = latest_checkpoint(source)
        files = [*([latest] if latest else []), *(path for pattern in STATE for path in source.glob(pattern))]
        if not files:
            return []
        size = sum(path.stat().st_size for path in files) / 1e6
        limit = STATE_LIMIT if self.page else GPU_STATE_LIMIT
        if size > limit:
            self.say(f"the state of {step.name} has {size:.1f} MB and is not kept; the limit is {limit}")
            return []
        shutil.rmtree(target, ignore_errors=True)
        for path in files:
            copy_file(path, target / path.relative_to(source))
        if latest:
            write_text(target / "log.jsonl", training_log(source))
        return [target / path.relative_to(source) for path in files]

    def keep_supernet(self, supernet: Supernet) -> None:
        """Keep a trained supernet as long as a step needs its checkpoint."""
        users = (step for step in self.steps if isinstance(step, SupernetUser) and step.supernet == supernet)
        if any(not self.done(user) for user in users):
            if latest_checkpoint(self.runs / supernet.name):
                self.keep(supernet)
        else:
            shutil.rmtree(self.results / supernet.name / "state", ignore_errors=True)

    def restore(self, name: str) -> None:
        """Put the kept state of a step where its commands look for it, unless they are further."""
        state, run = self.results / name / "state", self.runs / name
        if not state.is_dir() or epochs_of(run) >= epochs_of(state) > 0 or (run / "ledger.jsonl").is_file():
            return
        kept = (path for path in state.rglob("*") if path.is_file())
        with self._writing:
            for path in sorted(kept, key=lambda path: path.name.startswith("epoch_")):  # what resumes it last
                copy_file(path, run / path.relative_to(state))

    def write_down(self, entry: dict[str, Any]) -> None:
        """Append a line to the log."""
        self.results.mkdir(parents=True, exist_ok=True)
        with self._writing, (self.results / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
            self.__dict__.pop("log", None)

    @staticmethod
    def say(text: str) -> None:
        typer.echo(f"[{time.strftime('%H:%M:%S')}] {text}")


def chosen(finalists: Sequence[Evaluation]) -> Evaluation:
    """The EAN of a search: of highest reward among those with some connections and not all."""
    return max((each for each in finalists if 0 < each.scheme.sparsity < 1), key=lambda each: each.reward)


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU."""
    return torch.cuda.is_available()


def has_part_a() -> bool:
    """Whether the 300 training images of ShanghaiTech A are prepared, and not a sample of them."""
    try:
        images = read_manifest(data_root() / "crowd/shanghaitech")["images"]
    except (FileNotFoundError, ValueError):
        return False
    return sum(image["part"] == "A" and image["split"] != "test" for image in images) >= 300


def has_imagenet_weights() -> bool:
    """Whether the weights that ResNet-50's counters start from are on this machine."""
    return any(Path(torch.hub.get_dir(), "checkpoints").glob("resnet50-*.pth"))


def last_line(path: Path) -> str:
    """The last line of a text that is not empty: of a command's output, its error."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def epochs_of(folder: Path) -> int:
    """Epochs of the last checkpoint in a folder; 0 where there is none."""
    latest = latest_checkpoint(folder)
    return int(latest.stem.split("_")[1]) if latest else 0


#: Loaded before any process is forked from one of several threads.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Have the kernel stop this process when the one that started it is gone: two on one run would clash."""
    _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    shutil.copyfile(source, partial)
    partial.replace(target)


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class StepRow:
    """One step of the campaign."""

    titles: ClassVar[tuple[str, ...]] = ("step", "state", "result", "spent (min)", "left (min)")
    words: ClassVar[tuple[str, ...]] = ("step", "state", "result")

    name: str
    state: str
    result: str
    spent: float
    left: float

    def cells(self) -> dict[str, str]:
        """Column titles and texts."""
        return {
            "step": self.name,
            "state": self.state,
            "result": self.result,
            "spent (min)": f"{self.spent / 60:.0f}" if self.spent else "",
            "left (min)": f"{self.left / 60:.0f}" if self.left else "",
        }


def rows(campaign: Campaign) -> list[StepRow]:
    """The state of each step, those of schemes trained alone together, and their sum."""
    found = []
    steps = campaign.planned
    alone = [step for step in steps if isinstance(step, Alone)]
    if alone:
        done = sum(map(campaign.done, alone))
        waits = campaign.waits_for(alone[0])
        state = "done" if done == len(alone) else f"after {waits}" if waits else f"{done} of {len(alone)}"
        left = sum(campaign.expected(step) * (1 - campaign.progress(step)) for step in alone)
        spent = sum(map(campaign.spent, alone))
        found.append(StepRow(f"{alone[0].folder}/*", state, f"{len(alone)} schemes", spent, left))
    for step in steps:
        if step in alone:
            continue
        progress = campaign.progress(step)
        left = campaign.expected(step) * (1 - progress)
        found.append(
            StepRow(step.name, _state(campaign, step, progress), _result(campaign, step), campaign.spent(step), left)
        )
    done = sum(map(campaign.done, steps))
    total = StepRow("all", f"{done} of {len(steps)}", "", sum(r.spent for r in found), sum(r.left for r in found))
    return [*found, total]


def _state(campaign: Campaign, step: Step, progress: float) -> str:
    if progress == 1:
        return "done"
    waits = campaign.waits_for(step)
    if waits:
        return f"after {waits}"
    return f"{100 * progress:.0f} %" if progress else "to do"


def _result(campaign: Campaign, step: Step) -> str:
    folder = campaign.results / step.name
    if (folder / "test.json").is_file():
        test = read_record(folder / "test.json")
        key, value = headline(test["metrics"])
        return f"{key} {value:.2f} ({test['scheme']})"
    if (folder / "search.json").is_file():
        return f"EAN {campaign.scheme(ModelName(step.depth, campaign.source, 'ean', step.attention))}"  # type: ignore[union-attr]
    if (folder / "record.json").is_file():
        validation = read_record(folder / "record.json")["validation"]
        return "validation {} {:.2f}".format(*headline(validation)) if validation else ""
    return ""


# ---------------------------------------------------------------- commands

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Small = Annotated[bool, typer.Option("--small", help="The same on scikit-learn's digits, an epoch each.")]
OnGPU = Annotated[bool, typer.Option("--gpu", help="The steps that take a GPU.")]


def open_campaign(small: bool, gpu: bool = False) -> Campaign:
    """The campaign of this repository, or a small one that leaves it alone."""
    os.chdir(ROOT)
    zoo = Campaign(plan(), RESULTS, RUNS, report=REPORT)
    folder = Path(os.environ.get("EAN_CAMPAIGN", "work_dirs/campaign_small"))
    if not gpu:
        digits = (folder / "results", folder / "runs", folder / "zoo", "digits")
        return Campaign(plan("digits"), *digits, epochs=1) if small else zoo
    if small:
        groups = scheme_groups((3, 3, 3), random=3)
        digits = (folder / "gpu", folder / "gpu_runs", folder / "zoo", "digits")
        return Campaign(gpu_plan(groups, dataset="digits", depth=20), *digits, epochs=1, page=False, groups=groups)
    groups = scheme_groups((3, 3, 3), COMPARISON)
    trained = {"full", "none", *(zoo.scheme(ModelName(20, "cifar100", name, "se")) for name in ("ean", "best"))}
    known = {ConnectionScheme.parse(scheme, (3, 3, 3)) for scheme in trained}
    return Campaign(
        gpu_plan(groups, known),
        GPU_RESULTS,
        GPU_RUNS,
        report=REPORT,
        page=False,
        needs_gpu=True,
        groups=groups,
    )


@app.callback(invoke_without_command=True)
def state(context: typer.Context, small: Small = False, gpu: OnGPU = False) -> None:
    """Print the state of each step."""
    if context.invoked_subcommand is None:
        print_table(rows(open_campaign(small, gpu)), title="Campaign")


@app.command()
def run(
    until: Annotated[str | None, typer.Option(help="The last step to run.")] = None,
    commit: Annotated[bool, typer.Option("--commit", help="Commit the records of each step.")] = False,
    jobs: Annotated[int, typer.Option(help="Steps at once; one network leaves a GPU idle.", min=1)] = 1,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many, to go on another time.", min=0)] = None,
    small: Small = False,
    gpu: OnGPU = False,
) -> None:
    """Run the steps that are left, first one first."""
    campaign = open_campaign(small, gpu)
    names = [step.name for step in campaign.planned]
    if until is not None and until not in names:
        raise typer.BadParameter(f"there is no step {until!r}; the steps are {', '.join(names)}")
    campaign.runs.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop is a stop
    try:
        with FileLock(campaign.runs / "campaign.lock", timeout=0):
            _run_all(campaign, until, commit, jobs, minutes)
    except Timeout:
        typer.echo(f"another process runs the campaign in {campaign.runs}", err=True)
        raise typer.Exit(1) from None
    except (RuntimeError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("stopped; run again to go on from here", err=True)
        raise typer.Exit(1) from None


def _run_all(campaign: Campaign, until: str | None, commit: bool, jobs: int, minutes: float | None) -> None:
    """Run what is left; a step that fails is left out, and said in the end.

    Raises:
        RuntimeError: if a step failed, or was stopped.
    """
    wanted = next((step for step in campaign.planned if step.name == until), None)
    end = None if minutes is None else time.monotonic() + 60 * minutes
    running: dict[Future[None], Step] = {}
    failed: dict[Step, BaseException] = {}

    def settle(steps: Sequence[Step], what: str) -> None:
        with campaign._writing:
            campaign.settle()
            write_pages(campaign)
            if commit:
                for step in steps:
                    _commit(campaign, f"{what} of {step.name}")

    campaign.settle()
    time_is_up = False
    with ThreadPoolExecutor(jobs) as pool:
        try:
            finished: list[Step] = []
            while not time_is_up:
                while len(running) < jobs and not (wanted and campaign.done(wanted)):
                    step = campaign.next(running.values(), failed)
                    if step is None:
                        break
                    running[pool.submit(campaign.run, step)] = step
                settle(finished, "Records")
                if not running:
                    break
                left = None if end is None else max(0.0, end - time.monotonic())
                ended, _ = wait(running, left, FIRST_COMPLETED)
                time_is_up = not ended
                finished = []
                for future in ended:
                    step, error = running.pop(future), future.exception()
                    if error is None:
                        finished.append(step)
                    else:
                        failed[step] = error
                        campaign.say(f"{step.name} failed: {error}")
        finally:
            stopped = list(running.values())
            if running:
                campaign.stop()
                wait(running)
            for step in (*stopped, *failed):
                campaign.keep(step)
            if stopped or failed:
                settle([*stopped, *failed], "State")
    if failed:
        raise RuntimeError("\n".join(f"{step.name}: {error}" for step, error in failed.items()))
    if time_is_up:
        campaign.say(f"{minutes:g} minutes are over; the same command goes on from here")
    elif wanted is None:
        campaign.say("all steps are done" if all(map(campaign.done, campaign.planned)) else "the other steps wait")


def _commit(campaign: Campaign, message: str) -> None:
    """Commit records, kept states, and published files."""
    paths = [str(campaign.results), *(str(campaign.index / part) for part in PUBLISHED)]
    paths = [path for path in paths if Path(path).exists()]
    paths += [str(campaign.report)] if campaign.report else []
    subprocess.run(["git", "add", "--", *paths], check=False)
    done = subprocess.run(["git", "commit", "--quiet", "-m", message, "--", *paths], check=False)
    if done.returncode:
        campaign.say("git did not commit; what the next step commits holds these records, too")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Of a step.")], small: Small = False, gpu: OnGPU = False) -> None:
    """Print the commands of a step: those that were run, then those that are left."""
    campaign = open_campaign(small, gpu)
    step = next((step for step in campaign.steps if step.name == name), None)
    if step is None:
        raise typer.BadParameter(f"there is no step {name!r}; `python benchmarks/campaign.py` lists them")
    for command in step.commands(campaign):
        record = campaign.results / step.name / command.record
        typer.echo(read_record(record)["command"] if record.is_file() else str(command))
    waits = campaign.waits_for(step)
    if waits:
        typer.echo(f"# after {waits}, which says what stands for ? above")
    elif not campaign.done(step):
        typer.echo("# a checkpoint epoch_N.pth is the one that the training above ends with or selects")


@app.command()
def keep(small: Small = False, gpu: OnGPU = False) -> None:
    """Copy what resumes the steps under way into their results, to be committed."""
    campaign = open_campaign(small, gpu)
    for step in campaign.planned:
        if not campaign.done(step):
            kept = campaign.keep(step)
            if kept:
                typer.echo(f"{step.name}: {', '.join(path.name for path in kept)}")


@app.command()
def report(small: Small = False, gpu: OnGPU = False) -> None:
    """Write tables and figures out of the records, beside the paper's."""
    typer.echo(f"written: {', '.join(map(str, write_pages(open_campaign(small, gpu))))}")


def write_pages(campaign: Campaign) -> list[Path]:
    """The page of a campaign, and the report on all results where there is one."""
    pages = [write_page(campaign)] if campaign.page else []
    if campaign.report and campaign.results.is_dir():
        write_whole_report([campaign.results.parent], campaign.report)
        pages.append(campaign.report / "README.md")
    return pages


def write_page(campaign: Campaign) -> Path:
    """The report of what a campaign has found so far."""
    found = {
        step.attention.upper(): step for step in campaign.steps if isinstance(step, Search) and campaign.done(step)
    }
    ean = {name: ModelName(20, campaign.source, "ean", step.attention) for name, step in found.items()}
    blocks = {
        name: campaign.results / Timing(step.attention, step.dataset).name / "timing_blocks_deployed.json"
        for name, step in found.items()
    }
    return write_report(
        campaign.results,
        source=campaign.source,
        searches={name: campaign.results / step.name for name, step in found.items()},
        chosen={name: campaign.scheme(model) for name, model in ean.items()},
        times={name: path for name, path in blocks.items() if path.is_file()},
    )


if __name__ == "__main__":
    app()

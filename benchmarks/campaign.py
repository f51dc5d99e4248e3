"""The trainings behind the zoo: one table of plain `ean` commands, run by doit.

    python benchmarks/campaign.py                      # each step: done (U) or to run (R), and its command
    python benchmarks/campaign.py run -n 2             # two at once; stop it at any moment, and run it again to resume
    python benchmarks/campaign.py run '*resnet56_se*'  # some of them, and those that they need

doit (https://pydoit.org) is a maintained, dependency-free package whose tasks are plain Python data run `-n` at a time.
Unlike Make and Snakemake, which compare modification times, it asks each task whether it is done, and the records in a
fresh clone can answer that.

Runs lie in work_dirs/campaign, which git ignores. The records of a finished step are copied to benchmarks/results, and
a step is done when they are there. Steps in :data:`ON_GPU` are selected by default only where there is a GPU.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain
from doit.exceptions import TaskFailed

from ean_core.common.record import write_text
from ean_core.common.writing import open_in_place, replacing
from ean_core.runs.folder import Run
from ean_core.scheme import ConnectionScheme
from ean_core.search.ledger import read_lines
from zoo.names import ModelName

ROOT = Path(__file__).absolute().parents[1]
RUNS, RESULTS = Path("work_dirs/campaign"), Path("benchmarks/results/campaign")
#: Schemes to train alone, for Figure 4 and Table 4, are listed here; their records lie beside the list.
ALONE = Path("benchmarks/results/gpu/alone_resnet20_se.cifar100")
#: Runs that take too long without a GPU.
ON_GPU = re.compile("alone_|.*resnet(50|164)[_.]")
GPU = torch.cuda.is_available()
CPU_INFO = Path("/proc/cpuinfo")
BF16 = GPU or (CPU_INFO.is_file() and "avx512_bf16" in CPU_INFO.read_text())
MACHINE = {"amp": "--amp" if BF16 else "", "capture": "--capture" if GPU else "", "bf16": "bf16" if BF16 else "fp32"}

#: For each verb, the arguments of `ean` and the last file that the command writes, in its run's folder or in the zoo.
COMMANDS = {
    "train": ("train {config} {amp} --resume --work-dir {run}", "record.json"),
    "search": ("search {config} --resume --work-dir {run}", "search.json"),
    "compare": ("search compare {config} --resume --work-dir {run}", "compare.json"),
    "correlate": ("search correlate {config} {amp} {capture} --resume --work-dir {run}", "correlation.json"),
    "time": ("time {config} --out {run}/timing.json", "timing.json"),
    "blocks": ("time {config} --per-block --out {run}/timing.json", "timing_blocks_deployed.json"),
    "test": ("test {config} {run}", "test.json"),
    "count": ("crowd evaluate {config} {run} --no-time", "test.json"),
    "segment": ("seg evaluate {config} {run} --no-time", "test.json"),
    "publish": ("zoo publish {run} {config}", "zoo/cards/{model}.md"),
}
#: These run while no other step does.
UNDISTURBED = ("time", "blocks")
#: Copied to the results: all figures except predictions.png, which shows images of the data set.
KEPT = ("record.json", "test.json", "search.json", "compare.json", "correlation.json", "timing*.json", "table[35].*")
KEPT += ("ledger.jsonl", "finalists.jsonl", "scoring_times.json", "comparison.md", "*.csv", "*.svg", "[!p]*.png")
KEPT += ("*/seed_*/search.json", "*/seed_*/ledger.jsonl")
#: For each depth, the supernet's last epoch, which names its checkpoint, and the options of its search.
SEARCHES = {
    20: (15, "--strategy exhaustive"),
    56: (
        16,
        "--strategy local --cfg-options search.precision={bf16} search.strategy.evaluations=150 "
        "search.finalists.count=4",
    ),
    164: (150, "--strategy local --cfg-options search.strategy.evaluations=3000"),
}
TESTS = {"Image Classification": "test", "Crowd Counting": "count", "Semantic Segmentation": "segment"}


@dataclass(frozen=True)
class Step:
    """One row of the table.

    Args:
        run: folder of the run.
        verb: a key of :data:`COMMANDS`.
        config: what the command takes.
        options: more words; ``{scheme}`` is that of the search among ``needs``, others are in :data:`MACHINE`.
        needs: names of the steps that come before.
    """

    run: str
    verb: str
    config: str
    options: str = ""
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.run}/{self.verb}"

    @property
    def made(self) -> Path:
        """The file that its command ends with."""
        name = COMMANDS[self.verb][1].format(model=self.run.partition("/")[0])
        return Path(name) if "/" in name else RUNS / self.run / name

    @property
    def results(self) -> Path:
        return (ALONE.parent if self.run.startswith(ALONE.name) else RESULTS) / self.run

    @property
    def kept(self) -> Path:
        """The copy of :attr:`made` that stays; once a network of seed 0 is published, that is the zoo's."""
        if not self.made.is_relative_to(RUNS):
            return self.made
        model, _, seed = self.run.partition("/")
        published = Path("zoo/records") / model / self.made.name
        return published if seed == "seed_0" and published.is_file() else self.results / self.made.name

    @property
    def words(self) -> list[str]:
        """The command on this machine, without `ean`."""
        ledgers = [RESULTS / name.replace("/search", "/ledger.jsonl") for name in self.needs if "/search" in name]
        names = {"config": self.config, "run": RUNS / self.run, "scheme": "".join(map(ean_scheme, ledgers)), **MACHINE}
        return shlex.split(f"{COMMANDS[self.verb][0]} {self.options}".format(**names))


def ean_scheme(ledger: Path) -> str:
    """The finalist of highest reward among those that leave some blocks out and connect some."""
    if not ledger.is_file():
        return "SCHEME"  # not known yet
    finalists = [line for line in read_lines(ledger)[0] if line.get("step") == "finalists"]
    some = [line for line in finalists if 0 < ConnectionScheme.parse(line["scheme"]).sparsity < 1]
    return str(max(some, key=lambda line: line["reward"])["scheme"])


# ---------------------------------------------------------------- the table


def table() -> Iterator[Step]:
    """Yield all steps, each after the steps that it needs."""
    for depth in (20, 56, 164):
        for attention in ("se", "dia", "sge"):
            yield from searched(depth, attention)
            yield from timed(depth, attention, "cifar100", "--rounds 200")
            for seed in range(3):
                if attention == "se":
                    yield from network(f"resnet{depth}.cifar100", seed)
                yield from network(f"full_resnet{depth}_{attention}.cifar100", seed)
                yield from network(f"ean_resnet{depth}_{attention}.cifar100", seed)
    for data, names in (
        ("shanghaitech_b", ("resnet20",)),
        ("voc2012", ("ean_resnet20_se", "resnet20", "full_resnet20_se")),
    ):
        yield from timed(20, "se", data, "--batch 1 --rounds 50")
        for name in names:
            yield from network(f"{name}.{data}")
    for attention in ("se", "dia"):
        yield on_supernet("correlate", 20, attention, "--schemes 12 --epochs 5")
    zoo = {"000-000-000", "010-100-000", "111-111-111"}  # networks of the zoo have these
    groups = json.loads((ROOT / ALONE / "schemes.json").read_text())["groups"].values()
    for scheme in sorted({scheme for group in groups for scheme in group} - zoo):
        yield from trained(f"{ALONE.name}/{scheme}/seed_0", "resnet20_se_cifar100", [f"model.backbone.scheme={scheme}"])
    for name in ("resnet20_se", "resnet164_se", "resnet164_sge"):
        yield from network(f"org_{name}.cifar100")
    strategies = "--strategies local,ean,enas,ga,tpe,random,hsp --evaluations 300 --seeds 2"
    yield on_supernet("compare", 164, "se", f"{strategies} --cfg-options")
    yield on_supernet("correlate", 164, "se", "--schemes 12 --epochs 20 --cfg-options")
    for part in "ba":
        for name in ("resnet50", "full_resnet50_se", "ean_resnet50_se"):
            yield from network(f"{name}.shanghaitech_{part}")


def searched(depth: int, attention: str, data: str = "cifar100") -> Iterator[Step]:
    """A supernet and its search."""
    supernet = f"supernet_resnet{depth}_{attention}"
    yield from trained(f"{supernet}.{data}/seed_0", f"{supernet}_{data}", [])
    yield on_supernet("search", depth, attention, SEARCHES[depth][1], data)


def on_supernet(verb: str, depth: int, attention: str, options: str, data: str = "cifar100") -> Step:
    """A search, a comparison of strategies or a correlation."""
    resnet, supernet = f"resnet{depth}_{attention}", f"supernet_resnet{depth}_{attention}.{data}/seed_0"
    if depth == 164:  # batches that keep a GPU busy while the next kernels are launched
        options += " val_dataloader.batch_size=2500 search.precision=bf16"
    options = f"--supernet {RUNS}/{supernet}/epoch_{SEARCHES[depth][0]}.pth {options}"
    return Step(f"{verb}_{resnet}.{data}/seed_0", verb, f"search_{resnet}_{data}", options, (f"{supernet}/train",))


def timed(depth: int, attention: str, data: str, options: str) -> Iterator[Step]:
    """Networks side by side, with the scheme of the search on CIFAR-100; of classifiers also each connection."""
    resnet = f"resnet{depth}_{attention}"
    run, config, search = f"time_{resnet}.{data}", f"{resnet}_{data}", f"search_{resnet}.cifar100/seed_0/search"
    yield Step(run, "time", config, f"{options} --cfg-options model.backbone.scheme={{scheme}}", (search,))
    if data == "cifar100":
        yield Step(run, "blocks", config, options, (f"{run}/time",))


def network(name: str, seed: int = 0) -> Iterator[Step]:
    """A network of the zoo: trained, measured on test images once, and published where its seed is 0."""
    model = ModelName.parse(name)
    resnet = f"resnet{model.depth}_{model.attention or 'se'}"
    config, needs = f"{resnet}_{model.dataset}", []
    scheme = {"": "none", "ean": "ean" if model.depth == 50 else "{scheme}"}.get(model.variant, "full")
    overrides = [f"model.backbone.scheme={scheme}"]
    if scheme == "{scheme}":
        needs.append(f"search_{resnet}.cifar100/seed_0/search")
    if model.variant == "org":
        overrides.append("model.backbone.shared=False")
    if model.depth == 20 and model.dataset != "cifar100":
        first = name.replace(model.dataset, "cifar100")
        overrides.append(f"model.backbone.init_cfg.checkpoint=ean://{first}")
        needs.append(f"{first}/seed_0/publish")
    if seed:
        overrides.append(f"randomness.seed={seed}")
    train, test = trained(f"{name}/seed_{seed}", config, overrides, needs, TESTS[model.task])
    yield from (train, test)
    if seed == 0:
        options, needs = test.options, [*needs, train.name, test.name]
        if model.depth != 50:
            options = f"--timing {RESULTS}/time_{resnet}.{model.dataset}/timing.json {options}"
            needs.append(f"time_{resnet}.{model.dataset}/time")
        yield Step(train.run, "publish", config, options, tuple(needs))


def trained(run: str, config: str, values: list[str], needs: Iterable[str] = (), test: str = "test") -> Iterator[Step]:
    """A training with overrides of its config, and, except for supernets, the test of its network."""
    options = "{capture} " if test == "test" else ""
    compiled = ["model.compile_blocks=True"] if "resnet164" in config else []  # takes a minute
    if values or compiled:
        options += " ".join(["--cfg-options", *values, *compiled])
    yield Step(run, "train", config, options, tuple(needs))
    if test == "count":  # the official test images are kept apart
        values = [*values, "test_dataloader.dataset.split=val"]
    if not run.startswith("supernet"):
        yield Step(run, test, config, f"--cfg-options {' '.join(values)}", (*needs, f"{run}/train"))


# ---------------------------------------------------------------- how doit runs it


def tasks(steps: Iterable[Step]) -> Iterator[dict[str, Any]]:
    """Yield the steps as doit's tasks; `list` shows the command of each."""
    known = {step.name: step for step in steps}
    for step in known.values():
        yield {
            "basename": step.name,
            "doc": shlex.join(["ean", *step.words]) + ("  # on a GPU" if ON_GPU.match(step.run) else ""),
            "actions": [(carry_out, [step])],
            "task_dep": list(step.needs),
            "uptodate": [(is_done, [step, known])],
        }


def is_done(step: Step, known: Mapping[str, Step]) -> bool:
    """Whether the record is kept; a training must also be here as long as a step that follows needs its weights."""
    if step.verb != "train" or not step.kept.is_file() or step.made.is_file():
        return step.kept.is_file()
    return all(is_done(user, known) for user in known.values() if step.name in user.needs)


def carry_out(step: Step) -> TaskFailed | None:
    """Run the command unless it has finished already, and copy its records to the results."""
    run = RUNS / step.run
    run.mkdir(parents=True, exist_ok=True)
    with open_in_place(RUNS / "machine.lock") as lock, open_in_place(run / "output.txt") as output:
        fcntl.flock(lock, fcntl.LOCK_EX if step.verb in UNDISTURBED else fcntl.LOCK_SH)
        if not step.made.is_file():
            words = [sys.executable, "-m", "tasks.cli", *step.words]
            # The process holds the lock, too: it may outlive the campaign.
            code = subprocess.call(words, stdout=output, stderr=subprocess.STDOUT, pass_fds=[lock.fileno()])
            if code:
                return TaskFailed(f"exit status {code}, see {output.name}; run it again to resume")
    step.results.mkdir(parents=True, exist_ok=True)
    log = Run(run).log()
    if log:
        write_text(step.results / "log.jsonl", log)
    files = {path for pattern in KEPT for path in run.glob(pattern)}
    for path in sorted(files, key=lambda path: path == step.made):  # copied last: it marks the step as done
        with replacing(step.results / path.relative_to(run)) as partial:
            shutil.copyfile(path, partial)
    if step.verb == "publish":  # which put them into the zoo
        for name in ("record.json", "test.json", "log.jsonl"):
            (step.results / name).unlink(missing_ok=True)
    return None


def main(steps: Iterable[Step], words: list[str]) -> int:
    """Run doit on the steps; ``words`` are its arguments, `list` by default. Returns its exit status."""
    steps = list(steps)
    RUNS.mkdir(parents=True, exist_ok=True)
    selected = [step.name for step in steps if GPU or not ON_GPU.match(step.run)]
    running = {"default_tasks": selected, "continue": True, "par_type": "thread"}  # each waits for a process
    listing = {"status": True, "sort": "definition"}
    config = {"backend": "json", "dep_file": f"{RUNS}/doit.json", **running, **listing}
    loader = ModuleTaskLoader({"task_campaign": lambda: tasks(steps), "DOIT_CONFIG": config})
    return int(DoitMain(loader).run(words or ["list"]) or 0)


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        sys.exit(main(table(), sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; run it again to resume")

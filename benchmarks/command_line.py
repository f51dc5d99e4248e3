"""Processor time until the command line answers, and of the imports behind it.

    python benchmarks/command_line.py [--rounds 3] [--code after=. --code before=../earlier]

Each command runs in a new process, user and system time added up, since other work on the machine changes the time on
the clock; the least of the rounds counts. With several folders of code, commands alternate between them. Writes
benchmarks/results/command_line.json.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from ean_core.common.record import write_record
from ean_core.show.table import print_table

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "command_line.json"
#: Arguments of ``ean``.
COMMANDS = (
    "--help",
    "--version",
    "train --help",
    "crowd prepare --help",
    "train",
    "crowd predict",
    "crowd train",
    "search comapre",
    "models",
    "train resnet20_se_digit",
    "crowd predict x.jpg --model resnet20.shanghaitech",
    "configs",
    "zoo list",
    "zoo info ean_resnet20_se.cifar100",
)
IMPORTS = ("torch", "mmengine.model", "ean_core", "zoo")


def measured(words: list[str], code: Path) -> tuple[float, int]:
    """Run Python with the modules of a folder; return seconds of processor time, and the number of printed lines."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # `python -m` looks in the current folder first.
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, *words], cwd=code, env=environment, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, len((done.stdout + done.stderr).splitlines())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--code", action="append", metavar="NAME=FOLDER", help="code to measure; by default this one")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    codes = {name: Path(folder).resolve() for name, folder in (each.split("=", 1) for each in options.code or ())}
    codes = codes or {"after": ROOT}
    calls = {f"ean {words}": ["-m", "tasks.cli", *words.split()] for words in COMMANDS}
    calls |= {f"import {module}": ["-c", f"import {module}"] for module in IMPORTS}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for call, words in calls.items():
        rounds: dict[str, list[tuple[float, int]]] = {name: [] for name in codes}
        for _ in range(options.rounds):
            for name, code in codes.items():
                rounds[name].append(measured(words, code))
        found[call] = {
            name: {"processor_s": round(min(seconds for seconds, _ in each), 3), "lines": each[0][1]}
            for name, each in rounds.items()
        }
        Console(stderr=True).print(f"{call}: {found[call]}", highlight=False)
    write_record(options.out, kind="benchmark", rounds=options.rounds, commands=found)
    titles = {"processor_s": "s", "lines": "lines"}
    print_table(
        [
            {
                "command": call,
                **{f"{name} ({titles[key]})": f"{v:g}" for name, own in of.items() for key, v in own.items()},
            }
            for call, of in found.items()
        ],
        title=f"Processor time, least of {options.rounds}, and printed lines",
    )


if __name__ == "__main__":
    main()

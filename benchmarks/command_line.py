"""Processor time until the command line answers, the lines that it prints, and processor time of imports.

    python benchmarks/command_line.py [--rounds 5] [--code after=. --code before=../earlier]

Each command runs in a new process, user and system time added up, since other work on the machine changes the time on
the clock; the least of the rounds counts. All commands, with all folders of code, alternate in each round. Imports are
also given relative to `import mmengine.model`, which any user of mmengine's networks waits for. Writes
benchmarks/results/command_line.json.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from rich.console import Console

from ean_core.common.record import write_record
from ean_core.show.table import print_table
from tasks.pictures import save_picture

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "command_line.json"
#: Arguments of ``ean``; FOLDER is a new one in each round.
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
    "train resnet20_se_digits --work-dir FOLDER/run --cfg-options train_cfg.max_epochs=2",
    "test resnet20_se_digits FOLDER/run",
    "crowd predict FOLDER/gray.png --out FOLDER/counted",
)
REFERENCE = "import mmengine.model"
IMPORTS = ("import torch", REFERENCE, "import ean_core", "import zoo", "from ean_core import EANResNet")


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--code", action="append", metavar="NAME=FOLDER", help="code to measure; by default this one")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    codes = {name: Path(folder).resolve() for name, folder in (each.split("=", 1) for each in options.code or ())}
    codes = codes or {"after": ROOT}
    calls = {f"ean {words}": ["-m", "tasks.cli", *words.split()] for words in COMMANDS}
    calls |= {statement: ["-c", statement] for statement in IMPORTS}
    rounds: dict[str, dict[str, list[tuple[float, int]]]] = {call: {name: [] for name in codes} for call in calls}
    for _ in range(options.rounds):
        with TemporaryDirectory() as temporary:
            folders = {name: Path(temporary, name) for name in codes}
            for folder in folders.values():
                folder.mkdir()
                save_picture(Image.new("RGB", (320, 240), "gray"), folder / "gray.png")
            for call, words in calls.items():
                for name, code in codes.items():
                    own = [word.replace("FOLDER", str(folders[name])) for word in words]
                    rounds[call][name].append(measured(own, code))
                    Console(stderr=True).print(f"{call}, {name}: {rounds[call][name][-1]}", highlight=False)
    found: dict[str, dict[str, dict[str, float]]] = {
        call: {
            name: {"processor_s": round(min(seconds for seconds, _ in each), 3), "lines": each[0][1]}
            for name, each in of.items()
        }
        for call, of in rounds.items()
    }
    for statement in IMPORTS:
        for name, own in found[statement].items():
            own["relative"] = round(own["processor_s"] / found[REFERENCE][name]["processor_s"], 3)
    write_record(options.out, kind="benchmark", rounds=options.rounds, commands=found)
    titles = {"processor_s": "s", "lines": "lines", "relative": f"/ {REFERENCE}"}
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

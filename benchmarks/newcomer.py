"""The path of somebody who comes here for the first time: how long each command of the README's first block takes.

    python benchmarks/newcomer.py [--from URL]

Clones the repository (the committed state of this one, by default) into an empty folder and runs the commands there as
they stand, all but `make test`. The picture of one's own is a drawn crowd. Writes benchmarks/results/newcomer.json.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ean_core.common.record import write_record
from tasks.crowd_counting.drawing import draw_crowd
from tasks.pictures import save_picture

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/newcomer.json"
PEOPLE = 40


def commands(readme: str) -> list[str]:
    """The commands of the first block, without comments and without the tests."""
    block = re.search(r"```bash\n(.*?)```", readme, re.DOTALL)
    assert block is not None, "the README has a block of commands"
    lines = [line.partition("#")[0].strip() for line in block[1].splitlines()]
    return [line for line in lines if line and line != "make test"]


def timed(command: str, folder: Path) -> float:
    """Seconds that a command takes in a folder.

    Raises:
        SystemExit: if it fails.
    """
    print(f"$ {command}", flush=True)
    start = time.monotonic()
    # Nothing of this process's environment: neither its packages nor its data.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EAN_", "VIRTUAL_ENV"))}
    environment["EAN_HOME"] = str(folder.parent / "home")
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment)
    if done.returncode:
        sys.exit(f"{command!r} ended with {done.returncode}")
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", default=str(ROOT), help="What to clone.")
    source = parser.parse_args().source
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "ean-zoo"
        steps = {"git clone": timed(f"git clone --quiet {shlex.quote(source)} ean-zoo", Path(folder))}
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True)
        save_picture(draw_crowd(PEOPLE, (480, 640), seed=0)[0], clone / "street.jpg")
        for command in commands((clone / "README.md").read_text(encoding="utf-8")):
            steps[command] = timed(command, clone)
    for name, seconds in [*steps.items(), ("all", sum(steps.values()))]:
        print(f"{seconds:7.1f} s  {name}")
    write_record(RESULT, kind="newcomer", commit=head.stdout.strip(), seconds=steps, total=sum(steps.values()))


if __name__ == "__main__":
    main()

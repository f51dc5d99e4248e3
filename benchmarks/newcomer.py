"""The first steps of a new user: duration of each command in the README's first block.

    python benchmarks/newcomer.py [--from URL]

Clones the repository (by default the committed state of this one) into an empty folder and runs the commands there
unchanged, except `make test`. The user's photo is a synthetic crowd. Writes benchmarks/results/newcomer.json.
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
    """The commands of the first block, without comments and without `make test`."""
    block = re.search(r"```bash\n(.*?)```", readme, re.DOTALL)
    assert block is not None, "the README has a block of commands"
    lines = [line.partition("#")[0].strip() for line in block[1].splitlines()]
    return [line for line in lines if line and line != "make test"]


def timed(command: str, folder: Path) -> float:
    """Run a command in a folder and return its duration in seconds.

    Raises:
        SystemExit: if it fails.
    """
    print(f"$ {command}", flush=True)
    start = time.monotonic()
    # Hide this process's packages and data.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EAN_", "VIRTUAL_ENV"))}
    environment["EAN_HOME"] = str(folder.parent / "home")
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment)
    if done.returncode:
        sys.exit(f"{command!r} failed with exit code {done.returncode}")
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", default=str(ROOT), help="repository to clone")
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

"""What is run in other processes, by a name that these can import."""

import os
import random
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path

CONTENT = random.Random(0).randbytes(4_000_000)


def run(function, arguments, log):
    """Run a function in a group of its own, with what it prints in a file."""
    os.setsid()
    with open(log, "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):  # noqa: PTH123
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            function(*arguments)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code)
            raise


def fetch_content(address, path):
    from zoo.download import fetch

    path.parent.mkdir(exist_ok=True)
    fetch(address, path, size=len(CONTENT), sha256=sha256(CONTENT).hexdigest())


def write_in_place(folder):
    """What no job of ours does."""
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir()
    with (Path(folder) / "file").open("w") as file:
        for digit in "0123456789":
            file.write(digit)
            file.flush()
            time.sleep(0.05)


def locate_one(name, settings):
    os.environ.update(settings)
    from zoo.files import resolve

    print(resolve(name))

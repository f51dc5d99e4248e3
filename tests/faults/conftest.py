"""Faults as they happen: processes killed, disks full, files damaged, strangers' files; and how many were tried.

Each test counts its cases. Where ``EAN_FAULTS_TALLY`` names a file, a line a test goes there, of which
``benchmarks/faults.py`` makes the table of what was tried and survived.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # other processes import the module by this way
from fault_jobs import run

from ean_core.common.config import load_config
from ean_core.runs.training import run_test, run_training
from zoo.publish import publish

FAULTS = pytest.StashKey()
#: Settings of a run on the embedded digits, over which and again in seconds.
DIGITS = "resnet20_se_digits"


class Tally:
    """Cases of one fault, tried and survived."""

    def __init__(self, fault):
        self.fault, self.tried, self.survived = fault, 0, 0

    @contextmanager
    def case(self, number=1):
        """So many cases, which are survived if nothing is raised."""
        self.tried += number
        yield
        self.survived += number


@pytest.fixture
def tally(request):
    """Counts the cases of the fault that a module or test is marked with: ``@pytest.mark.fault('name')``."""
    found = Tally(request.node.get_closest_marker("fault").args[0])
    yield found
    path = os.environ.get("EAN_FAULTS_TALLY")
    if path:
        line = {"fault": found.fault, "test": request.node.nodeid, "tried": found.tried, "survived": found.survived}
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.hookimpl(tryfirst=True)
@pytest.fixture
def root(tmp_path, digits_run, monkeypatch):
    """A custom index with one model."""
    for name in ("EAN_ZOO_URL", "EAN_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "zoo"
    publish(digits_run / "epoch_1.pth", load_config(DIGITS, ["model.backbone.scheme=100-010-001"]), root)
    monkeypatch.setenv("EAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EAN_ZOO_INDEX", str(root))
    return root


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("fault") is None:
            raise pytest.UsageError(f"{item.nodeid} is marked with no fault")


# ---------------------------------------------------------------- processes to be killed


class Forks:
    """Starts functions in processes that have imported everything already; seconds of it would be killed otherwise."""

    def __init__(self, log):
        self.log = log
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(
            ["ean_core.commands.compare", "tasks.crowd_counting.prepare", "zoo.publish"]
        )
        self.started = []

    def start(self, function, *arguments):
        process = self.context.Process(target=run, args=(function, arguments, self.log))
        process.start()
        self.started.append(process)
        return process

    def ean(self, *words):
        from tasks.cli import main

        return self.start(main, [str(word) for word in words])

    @staticmethod
    def kill(process):
        """The process and all that it started, by SIGKILL; whether it was still running."""
        running = process.is_alive()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        return running

    def said(self):
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def forks(tmp_path):
    forks = Forks(tmp_path / "said.txt")
    yield forks
    for process in forks.started:
        forks.kill(process)


@pytest.fixture
def kill_often(forks, tally, tmp_path):
    """Kills a job at random moments, lets it go on each time, and compares what it ends with.

    The job is started by ``start(folder)`` in one folder again and again until it ends by itself, then in a new one.
    After each kill ``intact(folder)`` looks for what no reader may ever see; ``equal(folder)`` compares the end with
    that of a job that nobody disturbed.
    """

    def often(start, moments, seconds, intact, equal, draws):
        kills = ends = 0
        folder = tmp_path / "job_0"
        while kills < moments or ends == 0:
            process = start(folder)
            if kills < moments:
                process.join(draws.uniform(0, seconds))
            else:
                process.join(120)
                assert not process.is_alive(), f"it hangs: {forks.said()[-2000:]}"
            if forks.kill(process):
                kills += 1
                with tally.case():
                    intact(folder)
                continue
            assert process.exitcode == 0, forks.said()[-3000:]
            equal(folder)
            ends += 1
            folder = tmp_path / f"job_{ends}"
        process = start(folder)  # what the last kill left goes on, too
        process.join(120)
        assert process.exitcode == 0, forks.said()[-3000:]
        equal(folder)
        return ends + 1

    return often


def timed(start, forks):
    """How long a job takes that nobody disturbs."""
    began = time.monotonic()
    process = start()
    process.join(300)
    assert process.exitcode == 0, forks.said()[-3000:]
    return time.monotonic() - began


# ---------------------------------------------------------------- what is worked on


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """The folder of a ResNet-20 with SE after one epoch on the digits, and its test."""
    folder = tmp_path_factory.mktemp("digits_run")
    options = ["model.backbone.scheme=100-010-001", "train_cfg.max_epochs=1"]
    checkpoint = run_training(load_config(DIGITS, options), folder)
    run_test(load_config(DIGITS, options), checkpoint, folder)
    return folder


@pytest.fixture(scope="session")
def digits_supernet(tmp_path_factory):
    """The checkpoint of a supernet after one epoch."""
    config = load_config("supernet_resnet20_se_digits", ["train_cfg.max_epochs=1"])
    return run_training(config, tmp_path_factory.mktemp("digits_supernet"))

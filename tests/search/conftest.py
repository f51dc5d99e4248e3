"""A supernet of the embedded digits, and commands in processes of their own that can be killed."""

import multiprocessing
import re

import pytest

from ean_core.config import load_config
from ean_core.search.ledger import read_lines
from ean_core.training import run_training
from tasks.cli import main


@pytest.fixture(scope="session")
def digits_supernet(tmp_path_factory):
    """The checkpoint of a supernet after one epoch."""
    config = load_config("supernet_resnet20_se_digits", ["train_cfg.max_epochs=1"])
    return run_training(config, tmp_path_factory.mktemp("digits_supernet"))


@pytest.fixture
def ean(capsys):
    """Runs a command in this process; its exit status or message, and what it printed."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code, re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)

    return run


@pytest.fixture
def start_ean():
    """Starts a command in a process of its own, which is killed at the end of the test at the latest."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ean_core.search.compare", "ean_core.search.correlate"])  # imports take seconds
    processes = []

    def start(*words):
        process = context.Process(target=main, args=([str(word) for word in words],))
        process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


@pytest.fixture
def ledger_lines():
    """Reads a ledger without its times."""

    def read(path):
        lines, torn = read_lines(path)
        assert torn == b""
        return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]

    return read

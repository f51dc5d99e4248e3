"""One thread a process: the networks here are small, and pytest-xdist keeps the cores busy with several processes.

Waiting threads of several processes on few cores stall each other; this holds for the processes that tests start, too.
"""

import multiprocessing
import os
import re
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)

BROWSER = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """A test draws the same numbers whatever ran before it, alone and beside others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def cifar_root():
    """EAN_DATA where it holds the real CIFAR-100 files; tests that need them are skipped elsewhere."""
    from ean_core.data import data_root

    root = data_root()
    if not (root / "cifar-100-python" / "train").is_file():
        pytest.skip("CIFAR-100 is not in EAN_DATA")
    return root


@pytest.fixture
def log(caplog):
    """Capture mmengine's logger, whose records do not reach pytest by themselves."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, without a window; tests of pages are skipped where it is not."""
    playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on this machine to look at the page with")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=BROWSER.split())
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def digits_supernet(tmp_path_factory):
    """The checkpoint of a supernet of the embedded digits after one epoch."""
    from ean_core.common.config import load_config
    from ean_core.runs.training import run_training

    config = load_config("supernet_resnet20_se_digits", ["train_cfg.max_epochs=1"])
    return run_training(config, tmp_path_factory.mktemp("digits_supernet"))


@pytest.fixture(scope="session")
def committed_report(tmp_path_factory):
    """The folder of the report of the committed records."""
    from ean_core.commands.report import write_report

    root, out = Path(__file__).resolve().parents[1], tmp_path_factory.mktemp("committed_report")
    write_report([root / "benchmarks/results", root / "zoo/records"], out)
    return out


@pytest.fixture
def ean(capsys):
    """Runs a command in this process; its exit status or message, and what it printed."""
    from tasks.cli import main

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code, re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)

    return run


@pytest.fixture
def start_ean():
    """Starts a command in a process of its own, which is killed at the end of the test at the latest."""
    from tasks.cli import main

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ean_core.commands.compare", "ean_core.commands.correlate"])  # imports take seconds
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
    from ean_core.search.ledger import read_lines

    def read(path):
        lines, torn = read_lines(path)
        assert torn == b""
        return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]

    return read

"""One thread a process: the networks here are small, and pytest-xdist keeps the cores busy with several processes.

Waiting threads of several processes on few cores stall each other; this holds for the processes that tests start, too.
"""

import os
import shutil

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
    """What mmengine's logger says, whose records do not reach pytest by themselves."""
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

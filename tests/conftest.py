"""One thread a process: the networks here are small, and pytest-xdist keeps the cores busy with several processes.

Waiting threads of several processes on few cores stall each other; this holds for the processes that tests start, too.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


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

"""Freed memory is kept: page faults are counted in a separate process, where no other test has changed malloc."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from ean_core.common.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    for _ in range(20):
        maps = [torch.ones(12_000_000) for _ in range(3)]  # of 48 MB, which malloc never keeps by itself
        del maps

def count():
    work()
    before = faults()
    work()
    print(faults() - before)

count()
assert keep_freed_memory()
count()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_what_was_freed_is_not_fetched_again():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    freed, kept = map(int, done.stdout.split())
    assert freed > 1_000  # 60 maps, each of at least 22 pages of 2 MB
    assert kept < 100


def test_elsewhere_nothing_is_changed(monkeypatch):
    from ean_core.common import memory

    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    assert memory.keep_freed_memory() is False

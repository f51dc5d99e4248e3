import re
import subprocess
import sys
from pathlib import Path

import pytest

from ean_core.runs.processes import locked

LEAVE_PROCESSES = """
import atexit
from pathlib import Path

def gloo_threads():
    return sum("gloo" in name.read_text() for name in Path("/proc/self/task").glob("*/comm"))

atexit.register(lambda: print("threads:", gloo_threads()))  # called last

from torch import nn
from mmengine.config import Config
from ean_core.runs.processes import initialize_processes
import mmengine.runner  # as in any run; with it PyTorch's compiler, which keeps a group that is there before

initialize_processes(Config({"env_cfg": {}}), "pytorch")

class Runner:
    def __init__(self):
        self.model = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        self.itself = self  # like the references of a runner's hooks and loops

Runner()
print("threads:", gloo_threads())
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have names in Linux's /proc")
def test_no_thread_of_gloo_outlives_the_run(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1")
    script = tmp_path / "leave.py"
    script.write_text(LEAVE_PROCESSES)
    output = subprocess.run(
        [sys.executable, *launcher, str(script)], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    during, after = (int(count) for count in re.findall(r"threads: (\d+)", output))
    assert during > 0
    assert after == 0


def test_what_killed_trainings_left_is_removed_by_the_next(tmp_path):
    kept = ["epoch_1.pth", "train.lock", ".test.json.01234567.part"]  # another command may be writing the last one
    for name in (*kept, ".epoch_2.pth.01234567.part", ".progress.json.89abcdef.part"):
        (tmp_path / name).touch()
    with locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == set(kept)

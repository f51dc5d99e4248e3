import os
import subprocess
import sys

import pytest

from ean_core import progress
from ean_core.progress import Progress


class Clock:
    def __init__(self):
        self.now = 50.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def steps(clock, total, seconds, done=0):
    with Progress("search", total, done) as made:
        for number in range(done, total):
            clock.now += seconds
            made.advance(f"step {number + 1}")


def test_without_a_terminal_there_is_a_line_every_15_seconds_and_one_at_the_end(clock, capsys):
    steps(clock, total=10, seconds=4)
    assert capsys.readouterr().out.splitlines() == [
        "search: 4/10, 24 s left, step 4",
        "search: 8/10, 8 s left, step 8",
        "search: 10/10, 0 s left, step 10",
    ]


def test_slow_steps_have_a_line_each(clock, capsys):
    steps(clock, total=3, seconds=60)
    assert [line.split(",")[1] for line in capsys.readouterr().out.splitlines()] == [" 120 s left", " 60 s left", " 0 s left"]


def test_the_estimate_of_a_resumed_task_counts_only_its_own_steps(clock, capsys):
    steps(clock, total=10, seconds=20, done=6)
    assert capsys.readouterr().out.splitlines()[0] == "search: 7/10, 60 s left, step 7"


def test_without_a_note_the_line_ends_with_the_estimate(clock, capsys):
    with Progress("timing", 1) as made:
        made.advance()
    assert capsys.readouterr().out == "timing: 1/1, 0 s left\n"


def test_an_error_inside_is_passed_on(clock):
    with pytest.raises(KeyError), Progress("search", 2):
        raise KeyError


def test_on_a_terminal_there_is_a_bar_with_count_estimate_and_note():
    code = (
        "from ean_core.progress import Progress\n"
        "with Progress('search', 3, done=1) as progress:\n"
        "    progress.advance('first')\n    progress.advance('best 71.20')\n"
    )
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.run([sys.executable, "-c", code], stdout=theirs, env=environment, check=False)
        os.close(theirs)
        shown = b""
        try:
            while chunk := terminal.read(4096):
                shown += chunk
        except OSError:  # how Linux says that the other side is closed
            pass
    assert done.returncode == 0
    text = shown.decode()
    assert "━" in text
    assert "3/3" in text
    assert "best 71.20" in text
    assert "s left" not in text

import os
import sys
from threading import Thread

import pytest

from ean_core.common import progress
from ean_core.common.progress import Progress


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
    assert [line.split(",")[1] for line in capsys.readouterr().out.splitlines()] == [
        " 120 s left",
        " 60 s left",
        " 0 s left",
    ]


def test_the_estimate_of_a_resumed_task_counts_only_its_own_steps(clock, capsys):
    steps(clock, total=10, seconds=20, done=6)
    assert capsys.readouterr().out.splitlines()[0] == "search: 7/10, 60 s left, step 7"


def test_a_step_may_be_several(clock, capsys):
    with Progress("search", 12) as made:
        for _ in range(4):
            clock.now += 30
            made.advance(steps=3)
    assert capsys.readouterr().out.splitlines() == [
        "search: 3/12, 90 s left",
        "search: 6/12, 60 s left",
        "search: 9/12, 30 s left",
        "search: 12/12, 0 s left",
    ]


def test_what_is_replayed_says_nothing_of_how_long_the_rest_takes(clock, capsys):
    with Progress("search", 12) as made:
        clock.now += 30
        made.advance(replayed=True, steps=6)
        clock.now += 30
        made.advance(steps=3)
    assert capsys.readouterr().out.splitlines()[-1] == "search: 9/12, 30 s left"


def test_without_a_note_the_line_ends_with_the_estimate(clock, capsys):
    with Progress("timing", 1) as made:
        made.advance()
    assert capsys.readouterr().out == "timing: 1/1, 0 s left\n"


def test_an_error_inside_is_passed_on(clock):
    with pytest.raises(KeyError), Progress("search", 2):
        raise KeyError


def test_on_a_terminal_there_is_a_bar_with_count_estimate_and_note(monkeypatch):
    ours, theirs = os.openpty()
    shown = b""

    def read():
        nonlocal shown
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # how Linux says that the other side is closed
            pass

    reader = Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        with Progress("search", 4, done=1) as made:
            made.advance("first")
            made.advance("best 71.20", steps=2)
        monkeypatch.undo()
    reader.join(timeout=10)
    os.close(ours)
    text = shown.decode()
    for expected in ("search", "━", "4/4", "0:00:00", "best 71.20"):
        assert expected in text
    assert "s left" not in text

import io
import os
import pty
import select
import subprocess
import sys
import time

import pytest
from rich.console import Console

from ean_core.commands import watch as command
from tasks.cli import main

from ..watch import made
from ..watch.made import iteration


def ean(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.mark.parametrize("more", [[], ["--once"]])
def test_without_a_terminal_or_on_demand_the_state_is_printed_once(tmp_path, capsys, more):
    made.start(tmp_path, [iteration(1, 50)])
    assert ean("watch", tmp_path, *more) == 0
    out = capsys.readouterr().out
    assert out.count("resnet20_se_digits") == 1
    assert "no news for" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_runs_is_an_error_of_one_line(tmp_path, name):
    (tmp_path / "empty").mkdir()
    message = ean("watch", tmp_path / name)
    assert message.startswith("ean watch: ")
    assert "give the folder of a training" in message


def test_on_a_terminal_it_looks_again_until_the_run_is_finished(tmp_path, monkeypatch):
    made.start(tmp_path, [iteration(1, 50)])
    out, slept = io.StringIO(), []
    monkeypatch.setattr(
        command, "Console", lambda **options: Console(file=out, force_terminal=True, width=80, **options)
    )

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            made.trained(tmp_path, at=100)

    monkeypatch.setattr(command.time, "sleep", sleep)
    assert ean("watch", tmp_path, "--every", 2) == 0
    assert slept == [2.0] * 3
    assert "finished" in out.getvalue()


def test_a_finished_run_ends_it_at_once(tmp_path, monkeypatch):
    made.trained(tmp_path, at=0)
    out = io.StringIO()
    monkeypatch.setattr(
        command, "Console", lambda **options: Console(file=out, force_terminal=True, width=80, **options)
    )
    monkeypatch.setattr(command.time, "sleep", pytest.fail)
    assert ean("watch", tmp_path) == 0
    assert "finished" in out.getvalue()


def test_ctrl_c_on_a_terminal_ends_with_status_130(tmp_path):
    made.start(tmp_path, [iteration(1, 50)])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", "watch", tmp_path, "--every", "0.2"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "70", "LINES": "30"},
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # makes it the terminal that Ctrl-C acts on
    )
    os.close(theirs)
    shown, end = b"", time.monotonic() + 120
    while shown.count(b"no news for") < 3:  # it looks again and again
        assert process.poll() is None, shown
        assert time.monotonic() < end
        if select.select([ours], [], [], 0.5)[0]:
            shown += os.read(ours, 4096)
    os.write(ours, b"\x03")
    try:
        while process.poll() is None and time.monotonic() < end:
            if select.select([ours], [], [], 0.5)[0]:
                shown += os.read(ours, 4096)
    except OSError:  # how Linux says that the other side is closed
        pass
    assert process.wait(timeout=60) == 130
    assert b"Traceback" not in shown
    os.close(ours)

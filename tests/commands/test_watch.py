import io

import pytest
from rich.console import Console

from ean_core.commands import watch as command

from ..watch import made


@pytest.fixture
def terminal(monkeypatch):
    """The text that the command writes to a terminal."""
    out = io.StringIO()
    console = Console
    monkeypatch.setattr(
        command, "Console", lambda **options: console(file=out, force_terminal=True, width=80, **options)
    )
    return out


@pytest.mark.parametrize("more", [[], ["--once"]])
def test_without_a_terminal_or_on_demand_the_state_is_printed_once(tmp_path, ean, more):
    made.training(tmp_path)
    code, out = ean("watch", tmp_path, *more)
    assert code == 0
    assert out.count("resnet20_se_digits") == 1
    assert "no update for" in out


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_runs_is_an_error_of_one_line(tmp_path, ean, name):
    (tmp_path / "empty").mkdir()
    message, _ = ean("watch", tmp_path / name)
    assert message.startswith("ean watch: ")
    assert "give the folder of a training" in message


def test_on_a_terminal_it_looks_again_until_the_run_is_finished(tmp_path, ean, terminal, monkeypatch):
    made.training(tmp_path)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            made.training(tmp_path, finished=True)

    monkeypatch.setattr(command.time, "sleep", sleep)
    assert ean("watch", tmp_path, "--every", 2)[0] == 0
    assert slept == [2.0] * 3
    assert "finished" in terminal.getvalue()


def test_a_finished_run_ends_it_at_once(tmp_path, ean, terminal, monkeypatch):
    made.trained(tmp_path, at=0)
    monkeypatch.setattr(command.time, "sleep", pytest.fail)
    assert ean("watch", tmp_path)[0] == 0
    assert "finished" in terminal.getvalue()


def test_ctrl_c_on_a_terminal_ends_with_status_130(tmp_path, ean, terminal, monkeypatch):
    made.training(tmp_path)

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", interrupted)
    assert ean("watch", tmp_path)[0] == 130
    assert "no update for" in terminal.getvalue()

import os
import signal
import subprocess
import sys
import time

import pytest

from tasks.crowd_counting import temporary
from tasks.crowd_counting.temporary import LOCK, PREFIX, sweep, temporary_folder

from .served import Server, as_in_a_terminal

CODE = """
import time
from tasks.crowd_counting.temporary import stop_cleanly, temporary_folder
stop_cleanly()
with temporary_folder() as folder:
    (folder / "upload.png").write_text("private")
    print(folder, flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)  # a second signal comes meanwhile
"""


@pytest.fixture(autouse=True)
def _in(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(temporary, "STARTING_S", -60)


def owner(**options):
    """A process with a folder."""
    options = {"preexec_fn": as_in_a_terminal, **options}
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True, **options)
    folder = temporary.Path(process.stdout.readline().strip())
    assert (folder / "upload.png").exists()
    return process, folder


def end(process, how):
    process.send_signal(how)
    process.wait(60)
    process.stdout.close()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_signals_delete_the_folder_also_when_they_come_twice(name):
    process, folder = owner()
    process.send_signal(getattr(signal, name))
    time.sleep(0.2)
    end(process, signal.SIGHUP)
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_nohup_still_keeps_the_server_alive():
    process, folder = owner(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    end(process, signal.SIGTERM)
    assert not folder.exists()


def test_the_folder_of_a_killed_process_is_swept_and_not_that_of_a_live_one(tmp_path):
    live, used = owner()
    killed, stale = owner()
    end(killed, signal.SIGKILL)
    with temporary_folder() as folder:
        assert not stale.exists()
        assert (used / "upload.png").exists()
        assert folder.parent == tmp_path
        assert sweep() == []  # this process holds its own
    assert not folder.exists()
    end(live, signal.SIGTERM)
    assert not used.exists()


def folder_of(path, mode=0o700):
    path.mkdir(mode=mode)
    path.chmod(mode)
    (path / LOCK).touch()
    (path / "upload.png").write_text("x")
    return path


def test_nothing_else_is_swept(tmp_path):
    elsewhere = folder_of(tmp_path / "elsewhere")
    kept = [
        elsewhere,
        folder_of(tmp_path / "other-crowd-1"),
        folder_of(tmp_path / f"{PREFIX}shared", mode=0o755),
        folder_of(tmp_path / f"{PREFIX}unlocked"),
        folder_of(tmp_path / f"{PREFIX}locked-by-a-link"),
    ]
    (kept[3] / LOCK).unlink()
    (kept[4] / LOCK).unlink()
    (kept[4] / LOCK).symlink_to(elsewhere / "upload.png")
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    stale = folder_of(tmp_path / f"{PREFIX}stale")
    (stale / "link").symlink_to(elsewhere)
    assert sweep() == [stale]
    assert not stale.exists()
    assert all((path / "upload.png").exists() for path in kept)
    assert (tmp_path / f"{PREFIX}link").is_symlink()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users as numbers")
def test_the_folders_of_other_users_are_not_swept(tmp_path, monkeypatch):
    theirs = folder_of(tmp_path / f"{PREFIX}theirs")
    monkeypatch.setattr("os.getuid", lambda: theirs.stat().st_uid + 1)
    assert sweep() == []
    assert theirs.exists()


def test_a_folder_that_was_just_made_is_not_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(temporary, "STARTING_S", 60)
    assert folder_of(tmp_path / f"{PREFIX}new").exists()
    assert sweep() == []


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_closing_the_terminal_of_the_server_deletes_the_uploads(counter_file, tmp_path):
    server = Server(counter_file, tmp_path, "--port", "0")
    try:
        status, _ = server.upload(b"private")
        assert status == 200
        assert [path for path in tmp_path.glob(f"{PREFIX}*/**/*") if path.name == "a.png"]
        server.stop(signal.SIGHUP)
    finally:
        server.stop(signal.SIGKILL)
    assert not list(tmp_path.glob(f"{PREFIX}*"))

"""Download failures of every kind, with a real server."""

import hashlib
import io
import random
import subprocess
import sys
import time
import urllib.error
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

import zoo.download
from ean_core.common.hashes import file_hash
from zoo.download import DownloadError, Patience, _BrokenOffError, _check_headers, _refuse, fetch

# For separate processes: avoids the seconds it takes to import PyTorch.
ALONE = f"import sys; sys.path.insert(0, {str(Path(zoo.download.__file__).parent)!r}); from download import fetch\n"
QUICK = Patience(tries=3, timeout=0.4, backoff=0.01)


@pytest.fixture
def content(server):
    content = random.Random(0).randbytes(300_000)
    (server.folder / "a file.bin").write_bytes(content)
    return content


@pytest.fixture
def get(server, content, tmp_path):
    """Download the file; keyword arguments override the correct ones."""
    folder = tmp_path / "into"
    folder.mkdir()

    def get(**different):
        options = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "patience": QUICK}
        fetch(f"{server.address}/a%20file.bin", folder / "a file.bin", **{**options, **different})
        return (folder / "a file.bin").read_bytes()

    get.folder = folder
    return get


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_nothing_else_is_left(get, content, server):
    seen = []
    assert get(progress=seen.append) == content
    assert names(get.folder) == ["a file.bin"]
    assert seen[-1] == len(content)
    assert seen == sorted(seen)
    assert len(server.requests) == 1


def test_a_broken_connection_is_resumed_where_it_ended(get, content, server):
    server.modes = ["truncate", "truncate"]
    assert get() == content
    assert [first for _, first in server.requests] == [0, 50_000, 100_000]


def test_a_server_without_ranges_sends_all_of_it_again(get, content, server):
    server.modes = ["truncate", "no range"]
    assert get() == content
    assert [first for _, first in server.requests] == [0, 50_000]


def test_a_later_process_goes_on_from_what_an_earlier_one_left(get, content, server):
    (get.folder / "a file.bin.part").write_bytes(content[:70_000])
    assert get() == content
    assert [first for _, first in server.requests] == [70_000]


def test_a_whole_file_under_its_temporary_name_needs_no_connection(get, content, server):
    (get.folder / "a file.bin.part").write_bytes(content)
    assert get() == content
    assert server.requests == []


@pytest.mark.parametrize("left", [b"x" * 70_000, b"x" * 300_000, b"x" * 400_000])
def test_what_was_left_of_another_file_is_thrown_away(get, content, left):
    (get.folder / "a file.bin.part").write_bytes(left)
    assert get() == content
    assert names(get.folder) == ["a file.bin"]


def test_a_server_that_cannot_go_on_is_asked_for_all(get, content, server):
    (get.folder / "a file.bin.part").write_bytes(content[:70_000])
    server.modes = [416]
    assert get() == content
    assert [first for _, first in server.requests] == [70_000, 0]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_passing_failure_is_tried_again(get, content, server, status):
    server.modes = [status, status]
    assert get() == content
    assert len(server.requests) == 3


def test_truncated_every_time(get, content, server):
    server.mode = "truncate"
    with pytest.raises(
        DownloadError, match=r"in 3 attempts: interrupted after 150,000 of 300,000 bytes; the first 150,000"
    ):
        get()
    assert names(get.folder) == ["a file.bin.part"]
    server.mode = "ok"
    assert get() == content
    assert server.requests[-1][1] == 150_000


def test_stalled(get, server):
    server.mode = "stall"
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"in 3 attempts: stalled for 0.4 s after 150,000 of 300,000 bytes"):
        get()
    assert time.monotonic() - start < 20
    assert "a file.bin" not in names(get.folder)


def test_a_stall_that_passes(get, content, server):
    server.modes = ["stall"]
    assert get() == content


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (404, r"not found \(404 Not Found\); is the base address right\? EAN_ZOO_URL sets another"),
        (403, r"access denied \(403 Forbidden\); is a login needed\?"),
        (401, r"access denied \(401 Unauthorized\)"),
        (410, r"not found \(410 Gone\)"),
        ("html", r"is a web page, not a file; is the base address right\?"),
        ("altered", r"is not the published file: its SHA-256 is [0-9a-f]{8}…, expected [0-9a-f]{8}…"),
        ("short", r"has 299,993 bytes, expected 300,000"),
        ("endless", r"the server sent more than the expected 300,000 bytes"),
    ],
)
def test_what_cannot_be_the_file_is_refused_at_once_and_leaves_nothing(get, server, mode, message):
    server.mode = mode
    with pytest.raises(DownloadError, match=message):
        get()
    assert names(get.folder) == []
    assert len(server.requests) == 1


def test_after_an_answer_with_another_range_all_is_asked_for(get, content, server):
    (get.folder / "a file.bin.part").write_bytes(content[:70_000])
    server.modes = ["other range"]
    assert get() == content
    assert [first for _, first in server.requests] == [70_000, 0]


def test_an_address_that_can_be_none_is_not_tried_again(server, tmp_path):
    with pytest.raises(DownloadError, match=r"cannot be downloaded: .*nonnumeric port"):
        fetch("http://127.0.0.1:x/a", tmp_path / "a", size=1, sha256="0", patience=QUICK)


def test_a_server_in_trouble_every_time(get, server):
    server.mode = 503
    with pytest.raises(DownloadError, match=r"could not be downloaded in 3 attempts: the server responded 503"):
        get()
    assert len(server.requests) == 3
    assert names(get.folder) == []


def test_nobody_there(get, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=r"in 3 attempts: no connection \(.*refused"):
        get()
    assert names(get.folder) == []


def test_a_full_disk_is_said_before_anything_is_fetched(get, server):
    with pytest.raises(
        DownloadError, match=r"not enough disk space for a file.bin in .*: it needs 1000000000.0 MB, .* MB are free"
    ):
        get(size=10**15)
    assert server.requests == []


def test_a_limit_on_file_sizes_is_reported_as_the_system_says_it(get, server, content):
    code = f"""{ALONE}
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
fetch({server.address!r} + "/a%20file.bin", Path({str(get.folder)!r}) / "a file.bin", size=300_000, sha256="0")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "could not be written" in done.stderr
    assert "File too large" in done.stderr
    assert names(get.folder) == []


def test_a_folder_behind_a_file_address(get, server, content, tmp_path):
    target = tmp_path / "copy.bin"
    sha256 = hashlib.sha256(content).hexdigest()
    fetch((server.folder / "a file.bin").as_uri(), target, size=300_000, sha256=sha256, patience=QUICK)
    assert file_hash(target) == sha256
    with pytest.raises(DownloadError, match=r"file:///.*/missing.bin does not exist"):
        fetch((server.folder / "missing.bin").as_uri(), target, size=1, sha256="0", patience=QUICK)


def test_a_killed_download_is_gone_on_with(get, server, content):
    """SIGKILL in the middle of a transfer."""
    server.mode = "stall"
    code = f"""{ALONE}
from pathlib import Path
fetch({server.address!r} + "/a%20file.bin", Path({str(get.folder)!r}) / "a file.bin", size=300_000, sha256="0",
      progress=lambda done: print(done, flush=True))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while process.stdout.readline().strip() != "50000":
        assert process.poll() is None
    process.kill()
    process.wait()
    server.mode = "ok"
    assert get() == content
    assert names(get.folder) == ["a file.bin"]


@pytest.mark.parametrize("length", ["abc", "²", "-5", "9" * 5000, "5 5"])
def test_a_length_that_is_not_a_number_is_refused(tmp_path, length):
    answer = SimpleNamespace(headers=Message())
    answer.headers["Content-Length"] = length
    answer.headers["Content-Type"] = "application/octet-stream"
    with pytest.raises(DownloadError, match=r"http://a/b has .* bytes, expected 1,000; nothing was kept"):
        _check_headers(answer, "http://a/b", tmp_path / "b.part", 1000, 0)


@pytest.mark.parametrize("length", ["1000", " 01000 ", ""])
def test_a_length_that_fits_is_taken(tmp_path, length):
    answer = SimpleNamespace(headers=Message())
    answer.headers["Content-Length"] = length
    answer.headers["Content-Type"] = "application/octet-stream"
    _check_headers(answer, "http://a/b", tmp_path / "b.part", 1000, 0)


@pytest.mark.parametrize(("after", "wait"), [("²", 0), ("soon", 0), ("-1", 0), ("7", 7), ("9" * 5000, 60)])
def test_a_wait_that_is_not_a_number_is_ignored(tmp_path, after, wait):
    headers = Message()
    headers["Retry-After"] = after
    error = urllib.error.HTTPError("http://a/b", 503, "busy", headers, io.BytesIO())
    with pytest.raises(_BrokenOffError, match="the server responded 503 busy") as raised:
        _refuse(error, "http://a/b", tmp_path / "b.part")
    assert raised.value.wait == wait

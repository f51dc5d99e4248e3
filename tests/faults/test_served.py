"""The counter's page under load: many at once, slow ones, large files, wrong requests. It stays small, and lives."""

import io
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..crowd_counting.served import Server, direct

pytestmark = pytest.mark.fault("the page under load")
MAX_MB = 1
#: What the page may grow by, in MB; the files sent are hundreds of times as large.
GROWTH = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    server = Server("resnet20.shanghaitech_b", folder, "--port", "0", "--max-mb", MAX_MB, "--max-pixels", "1")
    yield server
    server.stop()
    assert "Traceback" not in server.err.read_text()


def memory(server):
    """The most that the server has taken until now, in MB."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no memory is told")


def picture(seed):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)).save(content, "PNG")
    return content.getvalue()


def lives(server):
    began = time.monotonic()
    assert b"Crowd counter" in server.get("/")
    return time.monotonic() - began


def request(server, data, content_type, method="POST", path="/gradio_api/upload"):
    asked = urllib.request.Request(
        f"{server.url}{path}", data=data, headers={"Content-Type": content_type}, method=method
    )
    try:
        with direct().open(asked, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("number", [200])
def test_many_uploads_at_once(server, tally, number):
    lives(server)
    before = memory(server)

    def send(k):
        with tally.case():
            kind = k % 4
            if kind == 0:
                status, paths = server.upload(picture(k), f"{k}.png")
                assert (status, len(paths)) == (200, 1)
            elif kind == 1:  # no picture: refused when it is counted, in words
                status, _ = server.upload(random.Random(k).randbytes(5000), f"{k}.png")
                assert status == 200
            elif kind == 2:
                status, _ = server.upload(bytes(MAX_MB * 2**20 + k), f"{k}.png")
                assert status in (413, 503)  # too large; or, on a slow machine, without space while others upload
            else:
                status, _ = server.upload(picture(k), f"../../../{k}.png")
                assert status == 200 or 400 <= status < 500
            return status

    with ThreadPoolExecutor(number) as pool:
        statuses = Counter(pool.map(send, range(number)))
    assert statuses[413] + statuses[503] == number // 4
    assert lives(server) < 20
    assert memory(server) - before < GROWTH


def test_files_of_100_megabytes(server, tally):
    before = memory(server)
    for number in range(4):
        with tally.case():
            try:
                status, _ = server.upload(bytes(100 * 2**20), f"{number}.png")
            except (urllib.error.URLError, ConnectionError):  # it hangs up on us before it has all of it
                status = 413
            assert status == 413
    assert lives(server) < 20
    assert memory(server) - before < GROWTH


def test_slow_clients(server, tally):
    """Fifty that send a byte now and then do not keep others from being served."""
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        'Content-Length: 500000\r\n\r\n--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    )
    slow = []
    stop = threading.Event()
    for _ in range(50):
        one = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        one.sendall(head.encode())
        slow.append(one)

    def drip():
        while not stop.wait(0.05):
            for one in slow:
                try:
                    one.send(b"x")
                except OSError:
                    continue

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    try:
        for number in range(20):
            with tally.case():
                assert lives(server) < 10
                status, _ = server.upload(picture(number))
                assert status == 200
    finally:
        stop.set()
        dripping.join()
        for one in slow:
            one.close()
    assert lives(server) < 10


@pytest.mark.parametrize(
    ("data", "content_type", "method", "path"),
    [
        (b"hello", "text/plain", "POST", "/gradio_api/upload"),
        (b"hello", "multipart/form-data", "POST", "/gradio_api/upload"),
        (b"no part", "multipart/form-data; boundary=b", "POST", "/gradio_api/upload"),
        (b"{", "application/json", "POST", "/gradio_api/queue/join"),
        (b"", "application/json", "POST", "/gradio_api/api/count"),
        (None, "text/plain", "GET", "/gradio_api/file=/etc/passwd"),
        (None, "text/plain", "GET", "/gradio_api/file=../../../../etc/passwd"),
        (None, "text/plain", "GET", "/gradio_api/file=http://127.0.0.1:1/x"),
        (None, "text/plain", "GET", "/../../etc/passwd"),
        (b"", "text/plain", "PUT", "/"),
        (b"", "text/plain", "DELETE", "/gradio_api/upload"),
    ],
)
def test_wrong_requests(server, tally, data, content_type, method, path):
    with tally.case():
        assert 400 <= request(server, data, content_type, method, path) < 500
        assert lives(server) < 10


def test_it_cannot_be_reached_from_elsewhere(server, tally):
    """By default it listens on the loopback address alone."""
    with tally.case():
        own = [each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
        for address in {*own, "127.0.0.2"} - {"127.0.0.1"}:
            with socket.socket() as other:
                other.settimeout(2)
                assert other.connect_ex((address, server.port)) != 0, address

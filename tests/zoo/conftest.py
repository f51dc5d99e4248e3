"""A real HTTP server that can misbehave, and a small index of models published from a run made here."""

import functools
import http.server
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest

from ean_core.common.config import load_config
from ean_core.runs.training import run_test, run_training
from zoo.index import Index
from zoo.publish import publish

PIECE = 50_000  # bytes delivered by a broken connection


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        with server.lock:
            server.requests.append((self.path, first))
            mode = server.modes.pop(0) if server.modes else server.mode
        path = Path(server.folder) / unquote(self.path).lstrip("/")
        if isinstance(mode, int):
            self.answer(mode, b"no", {"Retry-After": "0"})
        elif mode == "html":
            self.answer(200, b"<!DOCTYPE html><title>Please log in</title>", {"Content-Type": "text/html"})
        elif not path.is_file():
            self.answer(404, b"no")
        else:
            self.deliver(mode, path.read_bytes(), first)

    def deliver(self, mode, content, first):
        if mode == "altered":
            content = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
        elif mode == "short":
            content = content[:-7]
        elif mode == "endless":
            content = content + b"more"
        if first and mode == "other range":
            headers = {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"}
            self.answer(206, content, headers)
        elif first and mode != "no range":
            if first >= len(content):
                self.answer(416, b"")
                return
            headers = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
            self.answer(206, content[first:], headers, cut=mode)
        else:
            self.answer(200, content, cut=mode, length=mode != "endless")

    def answer(self, status, content, headers=None, cut=None, length=True):
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **(headers or {})}.items():
            self.send_header(name, value)
        if length:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if cut in ("truncate", "stall"):
            content = content[:PIECE]
        self.wfile.write(content)
        self.wfile.flush()
        if cut == "stall":
            self.server.released.wait(30)


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder.

    ``mode`` is what it does to every request: ``ok``, ``truncate`` and ``stall`` after 50,000 bytes, ``altered``,
    ``short``, ``endless``, ``html``, ``no range``, ``other range``, or a status; ``modes`` holds those of the next.
    """

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.mode = "ok"
        self.modes = []
        self.requests = []
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(folder) as server:
        threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.05), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch, tmp_path):
    for name in ("EAN_ZOO_URL", "EAN_ZOO_INDEX", "EAN_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EAN_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a finished run: a ResNet20 with SE on the digits, one epoch, tested."""
    folder = tmp_path_factory.mktemp("trained")
    for name, scheme in (("ean", "100-010-001"), ("vanilla", "none")):
        config = load_config("resnet20_se_digits", [f"model.backbone.scheme={scheme}", "train_cfg.max_epochs=1"])
        checkpoint = run_training(config, folder / name)
        run_test(load_config("resnet20_se_digits", [f"model.backbone.scheme={scheme}"]), checkpoint, folder / name)
    return folder


SCHEMES = {"ean": "100-010-001", "vanilla": "none"}


@pytest.fixture(scope="session")
def published_once(trained, tmp_path_factory):
    root = tmp_path_factory.mktemp("index") / "zoo"
    for name, scheme in SCHEMES.items():
        config = load_config("resnet20_se_digits", [f"model.backbone.scheme={scheme}"])
        publish(trained / name / "epoch_1.pth", config, root)
    return root


@pytest.fixture
def root(published_once, tmp_path):
    """A custom index with two models and their files, free to modify."""
    return Path(shutil.copytree(published_once, tmp_path / "zoo"))


@pytest.fixture
def elsewhere(root, server, monkeypatch):
    """An entry of an index with files on the server only."""
    for file in (root / "weights").iterdir():
        file.rename(server.folder / file.name)
    monkeypatch.setenv("EAN_ZOO_INDEX", str(root))
    monkeypatch.setenv("EAN_ZOO_URL", server.address)
    return {str(name): entry for name, entry in Index(root).entries.items()}["ean_resnet20_se.digits"]

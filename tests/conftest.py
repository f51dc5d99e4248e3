"""One thread a process: the networks here are small, and pytest-xdist keeps the cores busy with several processes.

Waiting threads of several processes on few cores stall each other; this holds for the processes that tests start, too.
"""

import base64
import json
import math
import multiprocessing
import os
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from mmengine.fileio.handlers import PickleHandler, YamlHandler, file_handlers

from ean_core.inference import engine

torch.set_num_threads(1)
# Networks that many tests share would be exported after some seconds, in whichever test runs then.
engine.LOADING_S = engine.EXPORTING_S = math.inf

BROWSER = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """A test draws the same numbers whatever ran before it, alone and beside others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def cifar_root():
    """EAN_DATA where it holds the real CIFAR-100 files; tests that need them are skipped elsewhere."""
    from ean_core.data import data_root

    root = data_root()
    if not (root / "cifar-100-python" / "train").is_file():
        pytest.skip("CIFAR-100 is not in EAN_DATA")
    return root


@pytest.fixture
def log(caplog):
    """Capture mmengine's logger, whose records do not reach pytest by themselves."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, without a window; tests of pages are skipped where it is not."""
    playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on this machine to look at the page with")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=BROWSER.split())
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def digits_supernet(tmp_path_factory):
    """The checkpoint of a supernet of the embedded digits after one epoch."""
    from ean_core.common.config import load_config
    from ean_core.runs.training import run_training

    config = load_config("supernet_resnet20_se_digits", ["train_cfg.max_epochs=1"])
    return run_training(config, tmp_path_factory.mktemp("digits_supernet"))


@pytest.fixture(scope="session")
def committed_report(tmp_path_factory):
    """The folder of the report of the committed records."""
    from ean_core.commands.report import write_report

    root, out = Path(__file__).resolve().parents[1], tmp_path_factory.mktemp("committed_report")
    write_report([root / "benchmarks/results", root / "zoo/records"], out)
    return out


@pytest.fixture
def ean(capsys):
    """Runs a command in this process; its exit status or message, and what it printed."""
    from tasks.cli import main

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return ended.value.code, re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)

    return run


@pytest.fixture
def start_ean():
    """Starts a command in a process of its own, which is killed at the end of the test at the latest."""
    from tasks.cli import main

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ean_core.commands.compare", "ean_core.commands.correlate"])  # imports take seconds
    processes = []

    def start(*words):
        process = context.Process(target=main, args=([str(word) for word in words],))
        process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


@pytest.fixture
def ledger_lines():
    """Reads a ledger without its times."""
    from ean_core.search.ledger import read_lines

    def read(path):
        lines, torn = read_lines(path)
        assert torn == b""
        return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]

    return read


class HubHandler(BaseHTTPRequestHandler):
    """The parts of the Hugging Face Hub's protocol that downloads and uploads of small files need."""

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.deliver(body=False)

    def do_GET(self):
        self.deliver(body=True)

    def do_POST(self):
        self.server.requests.append(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            self.server.files.setdefault(name, {})
            self.answer(200, {"url": f"{self.server.endpoint}/{name}", "name": name})
        elif re.match(r"/api/models/[^/]+/[^/]+/preupload/", self.path):
            files = [{"path": each["path"], "uploadMode": "regular"} for each in json.loads(content)["files"]]
            self.answer(200, {"files": [{**each, "shouldIgnore": False} for each in files]})
        elif match := re.match(r"/api/models/([^/]+/[^/]+)/commit/", self.path):
            for line in map(json.loads, content.decode().splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.server.files[match[1]][value["path"]] = base64.b64decode(value["content"])
            self.answer(
                200, {"commitUrl": f"{self.server.endpoint}/{match[1]}/commit/{'0' * 40}", "commitOid": "0" * 40}
            )
        else:
            self.answer(200, {"errors": [], "warnings": []})  # the check of a card's metadata

    def deliver(self, body):
        self.server.requests.append(self.path)
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        content = self.server.files.get(match[1], {}).get(match[2]) if match else None
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"0123456789abcdef"' if match[2].endswith(".safetensors") else f'"{match[2]}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def answer(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A local server that speaks the hub's protocol: ``files`` by repository and name, ``requests``, ``cache``."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        server.files, server.requests, server.cache = {}, [], tmp_path / "hub"
        server.endpoint = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)  # read from HF_ENDPOINT at import
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(server.cache))
        yield server
        server.shutdown()


@pytest.fixture
def mmengines_readers(monkeypatch):
    """mmengine's own readers of YAML and pickles, which commands that ran in this process have replaced."""
    for suffix, reader in (("yml", YamlHandler()), ("yaml", YamlHandler()), ("pkl", PickleHandler())):
        monkeypatch.setitem(file_handlers, suffix, reader)

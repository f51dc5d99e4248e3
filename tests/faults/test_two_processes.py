"""Two processes on the same files: one works, the other waits for it, or is refused by name."""

import hashlib
import http.server
import threading
import time

import pytest
import torch
from fault_jobs import locate_one

from ean_core.common.config import load_config
from ean_core.runs.folder import Run
from ean_core.search.ledger import read_lines
from zoo.index import Index
from zoo.publish import publish

from ..crowd_counting.drawn import write_part
from .conftest import DIGITS

pytestmark = pytest.mark.fault("two processes on the same files")
SCHEME = "model.backbone.scheme=100-010-001"


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.is_alive()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_work_directory(forks, tally, tmp_path):
    words = ("train", "supernet_resnet20_se_digits", "--resume", "--work-dir", tmp_path / "run")
    first = forks.ean(*words, "--cfg-options", "train_cfg.max_epochs=6")
    wait_for(lambda: Run(tmp_path / "run").latest, first)
    with tally.case():
        second = forks.ean(*words, "--cfg-options", "train_cfg.max_epochs=6")
        second.join(60)
        assert second.exitcode == 1
        assert (
            f"ean train: another process is training in {tmp_path / 'run'}; wait for it, or choose another --w"
            in forks.said()
        )
        first.join(120)
        assert first.exitcode == 0
        assert torch.load(tmp_path / "run/epoch_6.pth", weights_only=True)["meta"]["epoch"] == 6


def test_a_ledger(forks, tally, tmp_path, digits_supernet):
    random = ("search.strategy.type=random", "search.strategy.evaluations=600", "search.strategy.schemes_per_step=1")
    words = ("search", "search_resnet20_se_digits", "--supernet", digits_supernet, "--work-dir", tmp_path, "--resume")
    words = (*words, "--cfg-options", *random, f"search.scores={tmp_path / 'scores'}")
    first = forks.ean(*words)
    wait_for(lambda: (tmp_path / "ledger.jsonl").exists() and len(read_lines(tmp_path / "ledger.jsonl")[0]) > 2, first)
    with tally.case():
        second = forks.ean(*words)
        second.join(60)
        assert second.exitcode == 1
        assert f"ean search: another search is writing {tmp_path / 'ledger.jsonl'}; wait for it" in forks.said()
        assert first.is_alive()


def test_scores_that_searches_share(forks, tally, tmp_path, digits_supernet):
    """Both go on, and ask the supernet for what the other has not."""
    random = ("search.strategy.type=random", "search.strategy.evaluations=40", "search.finalists.count=2")
    with tally.case():
        both = [
            forks.ean(
                *("search", "search_resnet20_se_digits", "--supernet", digits_supernet, "--work-dir", tmp_path / name),
                *("--cfg-options", *random, f"search.scores={tmp_path / 'scores'}"),
            )
            for name in "ab"
        ]
        for process in both:
            process.join(120)
            assert process.exitcode == 0, forks.said()
        for path in (tmp_path / "scores").glob("*.jsonl"):
            lines, torn = read_lines(path)
            assert torn == b""
            accuracies = {}
            for line in lines[1:]:
                assert accuracies.setdefault(line["scheme"], line["accuracy"]) == line["accuracy"]
        ledgers = [read_lines(tmp_path / name / "ledger.jsonl")[0] for name in "ab"]
        assert [line.get("accuracy") for line in ledgers[0]] == [line.get("accuracy") for line in ledgers[1]]


def test_a_prepared_folder(forks, tally, tmp_path):
    write_part(tmp_path / "data", images=(30, 2), size=(600, 800))
    words = ("crowd", "prepare", "--root", tmp_path / "data", "--out", tmp_path / "out", "--workers", 1)
    first = forks.ean(*words)
    wait_for(lambda: list((tmp_path / "out").rglob("*.h5")), first)
    with tally.case():
        second = forks.ean(*words)
        second.join(60)
        assert second.exitcode == 1
        assert f"another process is preparing {tmp_path / 'out'}; wait for it, or give another --out" in forks.said()
        first.join(120)
        assert first.exitcode == 0


def test_an_index_that_is_published_to(forks, tally, tmp_path, digits_run):
    """Both are listed in the end."""
    with tally.case():
        words = ("zoo", "publish", digits_run / "epoch_1.pth", DIGITS, "--to", tmp_path / "zoo")
        both = [forks.ean(*words, *more, "--cfg-options", SCHEME) for more in ((), ("--best",))]
        for process in both:
            process.join(120)
            assert process.exitcode == 0, forks.said()
        index = Index(tmp_path / "zoo")
        assert list(map(str, index.entries)) == ["best_resnet20_se.digits", "ean_resnet20_se.digits"]
        assert "best_resnet20_se.digits" in (tmp_path / "zoo/README.md").read_text()


def test_a_file_of_the_cache(forks, tally, tmp_path, digits_run):
    """Five processes fetch it once."""
    root, served = tmp_path / "zoo", tmp_path / "served"
    publish(digits_run / "epoch_1.pth", load_config(DIGITS, [SCHEME]), root)
    (root / "weights").rename(served)
    asked = []

    class Server(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=served)

        def log_message(self, *arguments):
            pass

        def do_GET(self):
            asked.append(self.path)
            time.sleep(0.3)
            super().do_GET()

    with tally.case(5), http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {
            "EAN_HOME": str(tmp_path / "home"),
            "EAN_ZOO_INDEX": str(root),
            "EAN_ZOO_URL": f"http://127.0.0.1:{server.server_port}",
        }
        several = [forks.start(locate_one, "ean_resnet20_se.digits", settings) for _ in range(5)]
        for process in several:
            process.join(60)
            assert process.exitcode == 0, forks.said()
        server.shutdown()
    assert len(asked) == 1
    (file,) = (tmp_path / "home/zoo").glob("*.safetensors")
    assert hashlib.sha256(file.read_bytes()).hexdigest()[:8] == file.stem.rpartition("-")[2]

"""SIGKILL at random moments: the next start continues, and ends where an undisturbed run ends."""

import functools
import http.server
import json
import random
import threading
import time

import h5py
import numpy as np
import pytest
import torch
from fault_jobs import CONTENT, fetch_content, write_in_place
from PIL import Image

from ean_core.common.hashes import file_hash
from ean_core.search.ledger import read_lines
from zoo.index import Index

from ..crowd_counting.drawn import write_part
from ..segmentation.drawn import write_voc
from .conftest import DIGITS, timed

pytestmark = pytest.mark.fault("kill -9 at a random moment")

#: Few moments with every test run, the many of the slow ones.
MOMENTS = pytest.mark.parametrize("moments", [3, pytest.param(50, marks=pytest.mark.slow)])
FEW = (
    "search.strategy.type=random",
    "search.strategy.evaluations=24",
    "search.strategy.schemes_per_step=3",
    "search.finalists.count=4",
    "search.finalists.images=100",
)


@MOMENTS
def test_training_a_supernet(forks, kill_often, tmp_path, moments):
    def start(folder):
        options = ("--cfg-options", "train_cfg.max_epochs=4", "train_cfg.val_interval=2")
        return forks.ean("train", "supernet_resnet20_se_digits", "--resume", "--work-dir", folder, *options)

    def intact(folder):
        for path in folder.glob("*.pth"):
            assert torch.load(path, weights_only=True)["state_dict"]
        for path in folder.glob("*.json"):
            json.loads(path.read_text())

    def equal(folder):
        ours, whole = (torch.load(each / "epoch_4.pth", weights_only=True) for each in (folder, tmp_path / "whole"))
        for name, value in whole["state_dict"].items():
            assert torch.equal(ours["state_dict"][name], value), name
        moments = [
            [state["momentum_buffer"] for _, state in sorted(run["optimizer"]["state"].items())]
            for run in (ours, whole)
        ]
        assert all(map(torch.equal, *moments))
        records = [json.loads((each / "record.json").read_text()) for each in (folder, tmp_path / "whole")]
        kept = [[{k: v for k, v in one.items() if "time" not in k} for one in r["validations"]] for r in records]
        assert kept[0] == kept[1]
        assert {path.name for path in folder.glob("*.p*")} == {path.name for path in (tmp_path / "whole").glob("*.p*")}

    seconds = timed(lambda: start(tmp_path / "whole"), forks)
    kill_often(start, moments, seconds, intact, equal, random.Random(moments))


@MOMENTS
def test_searching(forks, kill_often, tmp_path, digits_supernet, moments):
    def start(folder):
        words = ("search", "search_resnet20_se_digits", "--supernet", digits_supernet, "--work-dir", folder, "--resume")
        return forks.ean(*words, "--cfg-options", *FEW, f"search.scores={folder / 'scores'}")

    def lines(path):
        whole, torn = read_lines(path)
        return [{k: v for k, v in line.items() if k != "seconds"} for line in whole], torn

    def intact(folder):
        for path in folder.rglob("*.jsonl"):
            read, _ = lines(path)  # what is torn is known to be
            assert (
                read == lines(tmp_path / "whole" / path.relative_to(folder))[0][: len(read)] or "scores_" in path.name
            )
        for path in folder.glob("*.json"):
            json.loads(path.read_text())

    def equal(folder):
        assert lines(folder / "ledger.jsonl") == lines(tmp_path / "whole/ledger.jsonl")
        found = [json.loads((each / "search.json").read_text()) for each in (folder, tmp_path / "whole")]
        assert found[0]["scheme"] == found[1]["scheme"]

    seconds = timed(lambda: start(tmp_path / "whole"), forks)
    kill_often(start, moments, seconds, intact, equal, random.Random(moments))


@MOMENTS
def test_preparing_crowds(forks, kill_often, tmp_path, moments):
    write_part(tmp_path / "data", images=(24, 2), size=(240, 320))

    def start(folder):
        return forks.ean("crowd", "prepare", "--root", tmp_path / "data", "--out", folder, "--workers", 2)

    def read(path):
        with h5py.File(path) as file:
            return file["points"][()], file["density"][()]

    def intact(folder):
        for path in folder.rglob("*.h5"):
            assert read(path)[1].shape == (240, 320)
        if (folder / "manifest.json").exists():
            assert len(json.loads((folder / "manifest.json").read_text())["images"]) == 26

    def equal(folder):
        whole = tmp_path / "whole"
        names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
        assert sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) == names
        for name in names:
            if name.suffix == ".h5":
                assert all(map(np.array_equal, read(folder / name), read(whole / name)))
        manifests = [json.loads((each / "manifest.json").read_text())["images"] for each in (folder, whole)]
        assert manifests[0] == manifests[1]

    seconds = timed(lambda: start(tmp_path / "whole"), forks)
    kill_often(start, moments, seconds, intact, equal, random.Random(moments))


@MOMENTS
def test_preparing_masks(forks, kill_often, tmp_path, moments):
    pytest.importorskip("mmseg", reason="needs mmsegmentation")
    write_voc(tmp_path / "data", images=(60, 20), size=(240, 320))

    def start(folder):
        return forks.ean("seg", "prepare", "--root", tmp_path / "data/VOCdevkit", "--out", folder, "--workers", 2)

    def intact(folder):
        for path in folder.rglob("*.png"):
            Image.open(path).load()

    def equal(folder):
        whole = tmp_path / "whole"
        names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
        assert sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) == names
        for name in names:
            if name.suffix in (".png", ".txt"):
                assert (folder / name).read_bytes() == (whole / name).read_bytes()

    seconds = timed(lambda: start(tmp_path / "whole"), forks)
    kill_often(start, moments, seconds, intact, equal, random.Random(moments))


class Slowly(http.server.BaseHTTPRequestHandler):
    """A server that gives a file in small pieces, from wherever it is asked to."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        for start in range(first, len(CONTENT), 40_000):
            try:
                self.wfile.write(CONTENT[start : start + 40_000])
            except OSError:  # the other end was killed
                return
            time.sleep(0.01)


@MOMENTS
def test_downloading(forks, kill_often, tmp_path, moments):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slowly) as server:
        threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.05), daemon=True).start()

        def start(folder):
            return forks.start(fetch_content, f"http://127.0.0.1:{server.server_port}/a.bin", folder / "a.bin")

        def intact(folder):
            if (folder / "a.bin").exists():
                equal(folder)

        def equal(folder):
            assert (folder / "a.bin").read_bytes() == CONTENT

        seconds = timed(lambda: start(tmp_path / "whole"), forks)
        kill_often(start, moments, seconds, intact, equal, random.Random(moments))
        server.shutdown()


@MOMENTS
def test_publishing(forks, kill_often, tmp_path, digits_run, moments):
    options = ("--cfg-options", "model.backbone.scheme=100-010-001")

    def start(folder):
        return forks.ean("zoo", "publish", digits_run / "epoch_1.pth", DIGITS, "--to", folder, *options)

    def intact(folder):
        for path in folder.rglob("*.safetensors"):
            if path.parent.name == "weights" and path.stem != "unnamed":
                assert file_hash(path)[:8] == path.stem.rpartition("-")[2]
        for entry in Index(folder).entries.values():  # what is listed is there
            assert file_hash(entry.packaged_file) == entry.sha256
            assert entry.record("record")
            assert entry.record("test")

    def equal(folder):
        contents = [
            {
                path.relative_to(each).as_posix(): path.read_bytes().replace(bytes(each), b"ROOT")
                for path in each.rglob("*")
                if path.is_file()
            }
            for each in (folder, tmp_path / "whole")
        ]
        assert contents[0].keys() == contents[1].keys()
        assert contents[0] == contents[1]

    seconds = timed(lambda: start(tmp_path / "whole"), forks)
    kill_often(start, moments, seconds, intact, equal, random.Random(moments))


@pytest.mark.fault("none, it shows that the others can fail")
def test_the_comparison_can_fail(forks, kill_often):
    """A job that writes in place, as ours do not, is found out."""

    def start(folder):
        return forks.start(write_in_place, folder)

    def equal(folder):
        assert (folder / "file").read_text() == "0123456789"

    with pytest.raises(AssertionError):
        kill_often(start, 30, 0.6, equal, equal, random.Random(0))

"""Disks that are full or read-only: the error names the file and the free space, and what was there stays."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from fault_jobs import fetch_while_it_fills, on_disk

from ean_core.common.config import load_config
from ean_core.runs.folder import Run
from ean_core.search.ledger import read_lines
from tasks.cli import main
from zoo.publish import publish

from ..crowd_counting.drawn import write_part

UNSHARE = shutil.which("unshare")
permitted = (
    UNSHARE is not None and subprocess.run([UNSHARE, "-rm", "true"], capture_output=True, check=False).returncode == 0
)
pytestmark = [
    pytest.mark.fault("disk full or read-only"),
    pytest.mark.skipif(not permitted, reason="mounting a small disk needs `unshare -rm`, which is not permitted here"),
]
SUPERNET = "supernet_resnet20_se_digits"


@pytest.fixture
def disk(tmp_path, forks):
    """Runs a command, or a function, on a disk of its own of so many megabytes.

    Returns its exit status, what it printed, and a folder with what was on the disk at its end.
    """

    def run(megabytes, *words, files=None, folders=(), read_only=False, **settings):
        place, kept = tmp_path / "disk", tmp_path / "kept"
        place.mkdir()
        settings = {"EAN_DATA": str(tmp_path), "HOME": str(tmp_path), **settings}
        made = {"megabytes": megabytes, "files": files or {}, "folders": folders, "read_only": read_only}
        job = words if callable(words[0]) else (main, [str(word) for word in words])
        process = forks.start(on_disk, place, kept, {**made, "settings": settings}, *job)
        process.join(300)
        return process.exitcode, forks.said(), kept

    return run


def says(code, said, file, reason):
    """That a command ended with one line that names the file, the reason and the room."""
    assert code == 1, said[-3000:]
    last = said.strip().splitlines()[-1]
    assert re.match(r"ean [a-z ]+: ", last), said[-3000:]
    assert file in last
    assert f"cannot be written: {reason}; " in last
    assert re.search(r"\d+\.\d MB are free in /", last)
    assert "Traceback" not in said


FULL, READ_ONLY = "the disk is full", "it is on a read-only file system"


def test_a_training_on_a_disk_too_small_for_one_checkpoint(disk, tally):
    """A checkpoint takes some 2.2 MB."""
    with tally.case():
        code, said, kept = disk(1, "train", SUPERNET, "--work-dir", "run", "--cfg-options", "train_cfg.max_epochs=2")
        says(code, said, "run/epoch_1.pth", FULL)
        assert not list((kept / "run").glob("*.part"))
        assert Run(kept / "run").latest is None


def test_a_training_on_a_disk_that_fills_up_goes_on_when_there_is_room_again(disk, tally, forks):
    options = ("--cfg-options", "train_cfg.max_epochs=3")
    with tally.case():
        code, said, kept = disk(4, "train", SUPERNET, "--work-dir", "run", *options)
        says(code, said, "run/epoch_2.pth", FULL)
        assert not list((kept / "run").glob("*.part"))
        last = Run(kept / "run").latest
        assert last.name == "epoch_1.pth"
        assert torch.load(last, weights_only=True)["meta"]["epoch"] == 1
    with tally.case():
        process = forks.ean("train", SUPERNET, "--work-dir", kept / "run", "--resume", *options)
        process.join(120)
        assert process.exitcode == 0, forks.said()
        assert Run(kept / "run").latest.name == "epoch_3.pth"


SCHEME = "--cfg-options model.backbone.scheme=100-010-001"


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (f"train {SUPERNET} --work-dir run", "run"),
        ("crowd prepare --root {data}/crowd --out run", "run"),
        (f"zoo publish {{run}}/epoch_1.pth resnet20_se_digits --to run {SCHEME}", "run"),
        ("search search_resnet20_se_digits --supernet {supernet} --work-dir run", "run"),
        ("report {run} --out run", "run"),
        (f"export resnet20_se_digits {{run}}/epoch_1.pth run/a.safetensors {SCHEME}", "run/a.safetensors"),
    ],
    ids=["train", "prepare", "publish", "search", "report", "export"],
)
def test_a_read_only_folder(disk, tally, tmp_path, digits_run, digits_supernet, words, file):
    with tally.case():
        write_part(tmp_path / "crowd", images=(3, 1))
        words = words.format(data=tmp_path, run=digits_run, supernet=digits_supernet)
        made = {"files": {"file": b"kept\n"}, "folders": ["run"], "read_only": True}
        code, said, kept = disk(10, *words.split(), **made)
        says(code, said, file, READ_ONLY)
        assert (kept / "file").read_text() == "kept\n"
        assert list((kept / "run").iterdir()) == []


def test_a_read_only_cache(disk, tally, tmp_path, digits_run):
    with tally.case():
        options = ["model.backbone.scheme=100-010-001"]
        publish(digits_run / "epoch_1.pth", load_config("resnet20_se_digits", options), tmp_path / "zoo")
        (tmp_path / "zoo/weights").rename(tmp_path / "served")
        settings = {
            "EAN_ZOO_INDEX": str(tmp_path / "zoo"),
            "EAN_ZOO_URL": (tmp_path / "served").as_uri(),
            "EAN_HOME": str(tmp_path / "disk/home"),
        }
        words = ("zoo", "download", "ean_resnet20_se.digits")
        code, said, kept = disk(10, *words, folders=["home"], read_only=True, **settings)
        assert code == 1
        last = said.strip().splitlines()[-1]
        assert re.search(r"the cache /.*/home/zoo is not writable .*ead-only file system.*; set EAN_HOME", last), last
        assert list((kept / "home").iterdir()) == []


def test_preparing_on_a_disk_that_fills_up(disk, tally, tmp_path):
    with tally.case():
        write_part(tmp_path / "crowd", images=(12, 2), size=(600, 800))
        words = ("crowd", "prepare", "--root", tmp_path / "crowd", "--out", "run", "--workers", 2)
        code, said, kept = disk(1, *words)
        says(code, said, "run/B/", FULL)
        assert not list(kept.rglob("*.part"))
        assert not (kept / "run/manifest.json").exists()


def test_a_search_on_a_disk_that_fills_up(disk, tally, digits_supernet):
    """Lines of whole steps stay, and are what an undisturbed search begins with."""
    with tally.case():
        random = ("type=random", "evaluations=90000", "schemes_per_step=20")
        options = [*(f"search.strategy.{option}" for option in random), "search.scores=scores"]
        words = ("search", "search_resnet20_se_digits", "--supernet", digits_supernet, "--work-dir", "run")
        code, said, kept = disk(1, *words, "--cfg-options", *options, files={"filler": bytes(700_000)})
        says(code, said, "", FULL)
        lines, torn = read_lines(kept / "run/ledger.jsonl")
        assert len(lines) > 500
        assert len(torn) < 500


def test_publishing_on_a_disk_that_fills_up(disk, tally, digits_run):
    with tally.case():
        words = ("zoo", "publish", digits_run / "epoch_1.pth", "resnet20_se_digits", "--to", "run")
        code, said, kept = disk(1, *words, *SCHEME.split())
        says(code, said, "run/weights", FULL)
        assert [path for path in kept.rglob("*") if path.is_file() and path.suffix not in (".lock", "")] == []


def test_downloading_on_a_disk_that_fills_up(disk, tally, digits_run, tmp_path):
    with tally.case():
        served = tmp_path / "served.bin"
        served.write_bytes(np.random.default_rng(0).bytes(3_000_000))
        _, said, kept = disk(4, fetch_while_it_fills, served)
        assert "the disk is full" in said, said
        assert sorted(path.name for path in kept.iterdir()) == ["filler"]


def test_predicting_into_a_full_folder(disk, tally, tmp_path):
    with tally.case():
        write_part(tmp_path / "crowd", images=(6, 1), size=(240, 320))
        pictures = tmp_path / "crowd/part_B/train_data/images"
        words = ("crowd", "predict", pictures, "--model", "resnet20.shanghaitech_b", "--out", "run")
        code, said, kept = disk(1, *words, files={"filler": bytes(1_000_000)})
        says(code, said, "run/", FULL)
        assert not list(kept.rglob("*.part*"))

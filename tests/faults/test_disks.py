"""Disks that are full or read-only: the error names the file and the free space, and what was there stays."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ean_core.common.config import load_config
from ean_core.runs.folder import Run
from ean_core.search.ledger import read_lines
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
EAN = f"{sys.executable} -m tasks.cli"
SUPERNET = "supernet_resnet20_se_digits"


@pytest.fixture
def disk(tmp_path):
    """Runs a script on a disk of its own of so many megabytes; what it printed, and what was on the disk at its end."""

    def run(megabytes, script):
        place, kept = tmp_path / "disk", tmp_path / "kept"
        place.mkdir()
        whole = f"""mount -t tmpfs -o size={megabytes}M none {place}
cd {place}
{script}
code=$?
df --output=avail {place} > {tmp_path}/free
cp -r {place} {kept}
exit $code
"""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "EAN_DATA": str(tmp_path), "HOME": str(tmp_path)}
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        done = subprocess.run(
            [UNSHARE, "-rm", "sh", "-c", whole], capture_output=True, text=True, check=False, env=environment
        )
        return done, kept

    return run


def says(done, file, reason):
    """That a command ended with one line that names the file, the reason and the room."""
    assert done.returncode == 1, done.stderr[-3000:]
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(r"ean [a-z ]+: ", last), done.stderr[-3000:]
    assert file in last
    assert f"cannot be written: {reason}; " in last
    assert re.search(r"\d+\.\d MB are free in /", last)
    assert "Traceback" not in done.stderr


FULL, READ_ONLY = "the disk is full", "it is on a read-only file system"


@pytest.mark.parametrize(("megabytes", "epoch"), [(1, 1), (4, 2)])
def test_a_training_on_a_disk_that_fills_up(disk, tally, megabytes, epoch):
    """A checkpoint takes some 2.2 MB."""
    with tally.case():
        done, kept = disk(megabytes, f"{EAN} train {SUPERNET} --work-dir run --cfg-options train_cfg.max_epochs=5")
        says(done, f"run/epoch_{epoch}.pth", FULL)
        assert not list((kept / "run").glob("*.part"))
        last = Run(kept / "run").latest
        assert (last is None) == (epoch == 1)
        if last:
            assert last.name == f"epoch_{epoch - 1}.pth"
            assert torch.load(last, weights_only=True)["meta"]["epoch"] == epoch - 1


def test_a_training_goes_on_when_there_is_room_again(disk, tally, forks):
    with tally.case():
        options = "--cfg-options train_cfg.max_epochs=4"
        done, kept = disk(4, f"{EAN} train {SUPERNET} --work-dir run {options}")
        says(done, "run/epoch_2.pth", FULL)
        process = forks.ean("train", SUPERNET, "--work-dir", kept / "run", "--resume", *options.split())
        process.join(120)
        assert process.exitcode == 0, forks.said()
        assert Run(kept / "run").latest.name == "epoch_4.pth"


SCHEME = "--cfg-options model.backbone.scheme=100-010-001"


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (f"train {SUPERNET} --work-dir run", "run"),
        ("crowd prepare --root {data}/crowd --out run", "run"),
        (f"zoo publish {{run}}/epoch_1.pth resnet20_se_digits --to run {SCHEME}", "run"),
        ("search search_resnet20_se_digits --supernet {supernet} --work-dir run", "run/ledger.jsonl"),
        ("report {run} --out run", "run"),
        (f"export resnet20_se_digits {{run}}/epoch_1.pth run/a.safetensors {SCHEME}", "run/a.safetensors"),
    ],
    ids=["train", "prepare", "publish", "search", "report", "export"],
)
def test_a_read_only_folder(disk, tally, tmp_path, digits_run, digits_supernet, words, file):
    with tally.case():
        write_part(tmp_path / "crowd", images=(3, 1))
        words = words.format(data=tmp_path, run=digits_run, supernet=digits_supernet)
        done, kept = disk(10, f"mkdir run; echo kept > file; mount -o remount,ro .; {EAN} {words}")
        says(done, file, READ_ONLY)
        assert (kept / "file").read_text() == "kept\n"
        assert list((kept / "run").iterdir()) == []


def test_a_read_only_cache(disk, tally, tmp_path, digits_run):
    with tally.case():
        options = ["model.backbone.scheme=100-010-001"]
        publish(digits_run / "epoch_1.pth", load_config("resnet20_se_digits", options), tmp_path / "zoo")
        (tmp_path / "zoo/weights").rename(tmp_path / "served")
        settings = f"EAN_ZOO_INDEX={tmp_path}/zoo EAN_ZOO_URL=file://{tmp_path}/served EAN_HOME=$PWD/home"
        words = "zoo download ean_resnet20_se.digits"
        done, kept = disk(10, f"mkdir home; mount -o remount,ro .; env {settings} {EAN} {words}")
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert re.search(r"the cache /.*/home/zoo cannot be written .*ead-only file system.*; set EAN_HOME", last), last
        assert list((kept / "home").iterdir()) == []


def test_preparing_on_a_disk_that_fills_up(disk, tally, tmp_path):
    with tally.case():
        write_part(tmp_path / "crowd", images=(12, 2), size=(600, 800))
        done, kept = disk(1, f"{EAN} crowd prepare --root {tmp_path}/crowd --out run --workers 2")
        says(done, "run/B/", FULL)
        assert not list(kept.rglob("*.part"))
        assert not (kept / "run/manifest.json").exists()


def test_a_search_on_a_disk_that_fills_up(disk, tally, digits_supernet):
    """Lines of whole steps stay, and are what an undisturbed search begins with."""
    with tally.case():
        random = "search.strategy.type=random search.strategy.evaluations=90000 search.strategy.schemes_per_step=20"
        words = f"search search_resnet20_se_digits --supernet {digits_supernet} --work-dir run"
        done, kept = disk(1, f"{EAN} {words} --cfg-options {random} search.scores=scores")
        assert done.returncode == 1
        says(done, "", FULL)
        lines, torn = read_lines(kept / "run/ledger.jsonl")
        assert len(lines) > 500
        assert len(torn) < 500


def test_publishing_on_a_disk_that_fills_up(disk, tally, digits_run):
    with tally.case():
        words = f"zoo publish {digits_run}/epoch_1.pth resnet20_se_digits --to run"
        done, kept = disk(1, f"{EAN} {words} --cfg-options model.backbone.scheme=100-010-001")
        says(done, "run/weights", FULL)
        assert [path for path in kept.rglob("*") if path.is_file() and path.suffix not in (".lock", "")] == []


def test_downloading_on_a_disk_that_fills_up(disk, tally, digits_run, tmp_path):
    with tally.case():
        served = tmp_path / "served.bin"
        served.write_bytes(np.random.default_rng(0).bytes(3_000_000))
        # another process takes the room after the download has looked for it
        code = f"""
import hashlib, pathlib, sys
from zoo import download
seen = pathlib.Path("{served}").read_bytes()
def fill(done):
    with open("filler", "ab") as file:
        file.write(b"x" * 500_000)
try:
    download.fetch("{served.as_uri()}", pathlib.Path("a.bin"), size=len(seen), sha256=hashlib.sha256(seen).hexdigest(),
        progress=fill)
except OSError as error:
    print(error)
"""
        (tmp_path / "code.py").write_text(code)
        done, kept = disk(4, f"{sys.executable} {tmp_path}/code.py")
        assert "the disk is full" in done.stdout, (done.stdout, done.stderr)
        assert sorted(path.name for path in kept.iterdir()) == ["filler"]


def test_predicting_into_a_full_folder(disk, tally, tmp_path):
    with tally.case():
        write_part(tmp_path / "crowd", images=(6, 1), size=(240, 320))
        pictures = tmp_path / "crowd/part_B/train_data/images"
        words = f"crowd predict {pictures} --model ean_resnet20_se.shanghaitech_b --out run"
        done, kept = disk(1, f"head -c 1000000 /dev/zero > filler; {EAN} {words}")
        says(done, "run/", FULL)
        assert {path.name for path in kept.rglob("*.part")} <= {"counts.csv.part"}  # what was counted until then

"""Links planted in a folder under the names that a command writes: it replaces them, and follows none.

So may a folder come out of a stranger's archive. Each command runs in a clean folder first, which tells its names.
"""

import re
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ean_core.common.config import load_config
from ean_core.common.writing import LinkError
from ean_core.runs.training import run_test, run_training
from tasks.cli import main
from tasks.crowd_counting.drawing import draw_crowd
from zoo.publish import publish

from .crowd_counting.drawn import write_part

SCHEME = "model.backbone.scheme=100-010-001"
TRAINING = ("--cfg-options", SCHEME, "train_cfg.max_epochs=1")
COUNTER = "resnet20.shanghaitech_b"
#: In names of files that differ from run to run.
TIMED = re.compile(r"\d{8}_\d{6}|tfevents")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a tested run on the digits."""
    folder = tmp_path_factory.mktemp("run")
    config = load_config("resnet20_se_digits", [SCHEME, "train_cfg.max_epochs=1"])
    run_test(config, run_training(config, folder), folder)
    return folder


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    config = load_config("supernet_resnet20_se_digits", ["train_cfg.max_epochs=1"])
    return run_training(config, tmp_path_factory.mktemp("supernet"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with an image and a video."""
    folder = tmp_path_factory.mktemp("images")
    draw_crowd(5, (48, 64), 0)[0].save(folder / "a.png")
    writer = cv2.VideoWriter(str(folder / "b.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 4, (64, 48))
    for number in range(3):
        writer.write(np.asarray(draw_crowd(3 * number, (48, 64), 0)[0])[:, :, ::-1])
    writer.release()
    return folder


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crowd")
    write_part(folder, images=(2, 1))
    return folder


@pytest.fixture(scope="module")
def index(run, tmp_path_factory):
    """An index with a model."""
    root = tmp_path_factory.mktemp("index") / "zoo"
    publish(run / "epoch_1.pth", load_config("resnet20_se_digits", [SCHEME]), root)
    return root


def ean(*words):
    """Exit status of a command in this process, or the line it ends with."""
    try:
        main([str(word) for word in words])
    except SystemExit as ended:
        return ended.code or 0


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def plant(folder, names, target):
    """Link the names, and those that temporary files had in earlier versions."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = {path.with_name(f"{path.name}.part"), path.with_name(f"{path.stem}.part{path.suffix}")}
        for link in {path, path.with_suffix(".part.mp4"), *partial}:
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def follows_no_link(tmp_path, start, *, but=(), before=None):
    """Check a command.

    Args:
        tmp_path: folder for everything.
        start: runs the command for an output folder, and returns its exit status.
        but: patterns of names that the command reads first, and refuses or continues; only temporary ones are planted.
        before: where these are copied from.
    """
    clean = tmp_path / "clean"
    assert start(clean) == 0
    names = {name for name in files(clean) if not TIMED.search(name) and not name.endswith(".lock")}
    assert names
    victim, absent = tmp_path / "victim", tmp_path / "absent"
    victim.write_text("mine")
    for target in (victim, absent):
        folder = tmp_path / f"linked_to_{target.name}"
        plant(folder, names, target)
        for name in names:
            if any(re.fullmatch(each, name) for each in but):
                (folder / name).unlink()
                if before:
                    shutil.copyfile(before / name, folder / name)
        links = files(folder)
        assert start(folder) == 0, links
        assert victim.read_text() == "mine"
        assert not absent.exists()
        for name in names:
            assert (folder / name).is_file(), name
            assert not (folder / name).is_symlink(), name
            assert (folder / name).stat().st_size or not (clean / name).stat().st_size, name
        assert {name for name in files(folder) - links - names if not TIMED.search(name)} <= {
            name for name in files(clean) if name.endswith(".lock")
        }


# ---------------------------------------------------------------- commands


def test_crowd_predict(images, tmp_path):
    follows_no_link(tmp_path, lambda out: ean("crowd", "predict", images, "--model", COUNTER, "--out", out))


def test_crowd_prepare(crowd, tmp_path):
    words = ("crowd", "prepare", "--root", crowd, "--workers", 1, "--out")
    follows_no_link(tmp_path, lambda out: ean(*words, out), but=["manifest.json"])


def test_train(tmp_path):
    words = ("train", "resnet20_se_digits", *TRAINING, "--work-dir")
    follows_no_link(tmp_path, lambda out: ean(*words, out), but=[r"epoch_1\.pth"])


def test_test(run, tmp_path):
    words = ("test", "resnet20_se_digits", run / "epoch_1.pth", "--cfg-options", SCHEME)
    follows_no_link(tmp_path, lambda out: ean(*words[:3], "--work-dir", out, *words[3:]))


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "pt2"])
def test_export(run, tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnxscript", reason="needs the export packages")
    words = ("export", "resnet20_se_digits", run / "epoch_1.pth")
    follows_no_link(tmp_path, lambda out: ean(*words, out / f"a.{kind}", "--cfg-options", SCHEME))


def test_report(run, tmp_path):
    follows_no_link(tmp_path, lambda out: ean("report", run, "--out", out))


def test_search(supernet, tmp_path):
    few = ("search.strategy.type=random", "search.strategy.evaluations=6", "search.finalists.count=2")
    few = (*few, "search.finalists.images=50", f"search.scores={tmp_path / 'scores'}")
    words = ("search", "search_resnet20_se_digits", "--supernet", supernet)
    but = ["search.json", "ledger.jsonl"]
    follows_no_link(tmp_path, lambda out: ean(*words, "--work-dir", out, "--cfg-options", *few), but=but)


def test_zoo_publish(run, index, tmp_path):
    words = ("zoo", "publish", run / "epoch_1.pth", "resnet20_se_digits", "--to")
    follows_no_link(
        tmp_path, lambda out: ean(*words, out, "--cfg-options", SCHEME), but=[r".*\.yml", "README.md"], before=index
    )


@pytest.mark.parametrize("more", [(), ("--backbone",)])
def test_zoo_download(index, tmp_path, monkeypatch, more):
    monkeypatch.setenv("EAN_ZOO_INDEX", str(index))
    follows_no_link(tmp_path, lambda out: ean("zoo", "download", "ean_resnet20_se.digits", "--to", out, *more))


def test_the_cache(index, tmp_path, monkeypatch):
    shutil.copytree(index, tmp_path / "index")
    (tmp_path / "index/weights").rename(tmp_path / "served")
    monkeypatch.setenv("EAN_ZOO_INDEX", str(tmp_path / "index"))
    monkeypatch.setenv("EAN_ZOO_URL", (tmp_path / "served").as_uri())

    def start(out):
        monkeypatch.setenv("EAN_HOME", str(out))
        return ean("zoo", "download", "ean_resnet20_se.digits")

    follows_no_link(tmp_path, start)


def test_explain(images, tmp_path):
    pytest.importorskip("captum", reason="explaining needs Captum")
    words = ("explain", "--model", COUNTER, images / "a.png", "--out")
    follows_no_link(tmp_path, lambda out: ean(*words, out))


# ---------------------------------------------------------------- files that are continued


def refuses(tmp_path, start, name):
    """Check that a command ends with a line about a link, and leaves what it points to."""
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    for target in (victim, tmp_path / "absent"):
        folder = tmp_path / f"refused_{target.name}"
        folder.mkdir()
        (folder / name).symlink_to(target)
        assert f"{folder / name} is a link, and what it points to would be changed; remove it" in str(start(folder))
        assert victim.read_text() == "mine\n"
        assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("name", ["ledger.jsonl", "ledger.jsonl.lock"])
def test_a_ledger(supernet, tmp_path, name):
    words = ("search", "search_resnet20_se_digits", "--supernet", supernet, "--resume", "--work-dir")
    options = ("--cfg-options", f"search.scores={tmp_path / 'scores'}")
    refuses(tmp_path, lambda out: ean(*words, out, *options), name)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("train", "resnet20_se_digits", "--work-dir", "{out}"), "train.lock"),
        (("crowd", "prepare", "--root", "{crowd}", "--out", "{out}"), "prepare.lock"),
        (("zoo", "publish", "{run}/epoch_1.pth", "resnet20_se_digits", "--to", "{out}"), "publish.lock"),
    ],
)
def test_a_lock(crowd, run, tmp_path, words, name):
    def start(out):
        options = ("--cfg-options", SCHEME) if "digits" in str(words) else ()
        return ean(*(word.format(out=out, crowd=crowd, run=run) for word in words), *options)

    refuses(tmp_path, start, name)


@pytest.mark.parametrize("at", ["", "{0}.log", "vis_data/scalars.json"])
def test_a_folder_of_logs_in_a_run(tmp_path, at):
    """Its name is the second of the start: all that may be are planted."""
    (tmp_path / "logs").mkdir()
    victim = tmp_path / "logs/victim"
    victim.write_text("mine")
    began = int(time.time())
    for second in range(began, began + 120):
        name = time.strftime("%Y%m%d_%H%M%S", time.localtime(second))
        link = tmp_path / "run" / name / at.format(name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(victim if at else victim.parent)
    with pytest.raises(LinkError, match="is a link"):
        run_training(load_config("resnet20_se_digits", ["train_cfg.max_epochs=1"]), tmp_path / "run")
    assert victim.read_text() == "mine"
    assert [path.name for path in victim.parent.iterdir()] == ["victim"]


def test_a_folder_that_is_a_link_is_the_users_choice(images, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert ean("crowd", "predict", images / "a.png", "--model", COUNTER, "--out", tmp_path / "out") == 0
    assert files(tmp_path / "disk") == {"a.png.overlay.jpg", "counts.csv", "counts.json"}
    assert (tmp_path / "out").is_symlink()
    assert Path(tmp_path / "out/counts.csv").is_file()

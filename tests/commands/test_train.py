"""Starts that fail: one line that says what to type instead, before mmengine prints, and no folder left."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ean_core.common.config import find_config
from ean_core.common.writing import file_lock, nothing_left
from ean_core.runs.folder import Run

DIGITS = "resnet20_se_digits"
SUPERNET = "supernet_resnet20_se_digits"
WEIGHTS = "model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint="


@HOOKS.register_module(force=True)
class Failing(Hook):
    """Fails in the second epoch."""

    def before_train_epoch(self, runner):
        if runner.epoch:
            raise ValueError("the second epoch fails")


@HOOKS.register_module(force=True)
class Refusing(Hook):
    """Fails at the start."""

    def before_run(self, runner):
        raise ValueError("refused once everything is built")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, and an empty EAN_DATA beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EAN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EAN_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("EAN_TRACEBACK", raising=False)
    return folder


@pytest.fixture
def own(tmp_path):
    """Own images without a test split, as prepared: a manifest."""
    folder = tmp_path / "data/crowd/own"
    folder.mkdir(parents=True)
    entries = [
        {"split": split, "part": "own", "file": f"{split}.h5", "image": f"{split}.jpg"} for split in ("train", "val")
    ]
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "root": "images", "images": entries}))
    return folder


@pytest.mark.parametrize(
    ("config", "option", "message"),
    [
        (DIGITS, "train_cfg.max_epoch=3", "train_cfg has no 'max_epoch'; did you mean train_cfg.max_epochs?"),
        ("resnet20_se_cifar100", "", "CIFAR-100 is missing or incomplete in {data}/cifar-100-python and EAN_OFFLINE"),
        ("resnet50_se_imagenet", "", "no images for split 'trainval' in {data}/imagenet/train"),
        ("resnet18_se_crowd", "", "{data}/crowd/own holds no prepared images "
            "(no manifest.json); `ean crowd prepare --root IMAGES"),
        ("resnet20_se_shanghaitech_b", "", "{data}/crowd/shanghaitech holds no prepared images "
            "(no manifest.json); `ean crowd prepare --root SHANGHAITECH"),
        (DIGITS, f"{WEIGHTS}nofile.pth", "model.backbone.init_cfg: there is no file nofile.pth; give a file with"),
        (DIGITS, f"{WEIGHTS}torchvision://resnet18", "model.backbone.init_cfg: torchvision://resnet18 cannot be "),
        (DIGITS, f"{WEIGHTS}torchvision://resnet181", "model.backbone.init_cfg: torchvision has no weights 'resnet18"),
        (DIGITS, f"{WEIGHTS}ean://resnet20.cifar10", "model.backbone.init_cfg: there is no model 'resnet20.cifar10'"),
        (DIGITS, "load_from=nofile.pth", "load_from=nofile.pth: there is no such file; give a checkpoint, or"),
    ],
)  # fmt: skip
def test_a_start_that_must_fail_fails_first_and_leaves_nothing(ean, here, config, option, message):
    options = ["--cfg-options", *option.split()] if option else []
    code, out = ean("train", config, *options)
    data = here.parent / "data"
    assert code.startswith(f"ean train: {message.format(data=data)}")
    assert "\n" not in code
    assert out == ""
    assert not list(here.iterdir())


@pytest.mark.parametrize("offline", ["0", "1"])
def test_weights_that_cannot_be_downloaded_are_answered_with_what_needs_no_network(
    ean, here, own, monkeypatch, offline
):
    monkeypatch.setenv("EAN_OFFLINE", offline)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # where nothing listens
    monkeypatch.setattr("urllib.request._opener", None)  # which keeps the proxies of its first use
    entry = "model.backbone.init_cfg"
    imagenet = ("_delete_=True", "type=Pretrained", "checkpoint=torchvision://resnet18")
    options = ("load_from=None", *(f"{entry}.{option}" for option in imagenet))
    code, out = ean("train", "resnet18_se_crowd", "--cfg-options", *options)
    assert code.startswith(f"ean train: {entry}: torchvision://resnet18 cannot be downloaded (")
    assert code.endswith(
        f"; without network access, give a file with --cfg-options {entry}.checkpoint=FILE (from "
        "https://download.pytorch.org/models/resnet18-f37072fd.pth), or use resnet20_se_crowd, which needs no download"
    )
    assert ("EAN_OFFLINE" in code) is (offline == "1")
    assert out.count("\n") == (offline == "0")  # PyTorch says what it downloads
    assert not list(here.iterdir())
    code, _ = ean("train", "resnet20_se_digits", "--cfg-options", *f"{WEIGHTS}torchvision://resnet18".split())
    assert code.endswith(f", or start from random weights with {entry}=None")


def test_missing_data_of_segmentors_name_the_command_or_the_folder(ean, here):
    pytest.importorskip("mmseg")
    code, out = ean("train", "resnet20_se_voc2012")
    assert code.startswith(f"ean train: {here.parent}/data/segmentation/voc2012 holds no prepared images")
    assert "`ean seg prepare --out" in code
    code, out = ean("train", "resnet50_se_ade20k")
    assert f"ADE20KDataset has no data at {here.parent}/data/ade/ADEChallengeData2016" in code
    assert out == ""
    assert not list(here.iterdir())


def test_images_that_a_split_lacks_are_said_before_a_checkpoint_is_read(ean, here, own):
    (here / "a.pth").write_text("not read")
    for command in (("test",), ("crowd", "evaluate")):
        code, out = ean(*command, "resnet18_se_crowd", "a.pth")
        assert code.startswith(f"ean {' '.join(command)}: {own} has no image in split 'test', only in 'train'")
        assert out == ""
    assert [path.name for path in here.iterdir()] == ["a.pth"]


def test_a_search_says_what_data_it_lacks_before_it_reads_the_supernet(ean, here):
    (here / "a.pth").write_text("not read")
    code, out = ean("search", "search_resnet20_se_cifar100", "--supernet", "a.pth")
    assert code.startswith("ean search: CIFAR-100 is missing")
    assert out == ""
    assert [path.name for path in here.iterdir()] == ["a.pth"]


# ---------------------------------------------------------------- folders

COMMANDS = [
    ("train", DIGITS, "--work-dir"),
    ("search", "search_resnet20_se_digits", "--work-dir"),
    ("search", "compare", "search_resnet20_se_digits", "--work-dir"),
    ("search", "correlate", "search_resnet20_se_digits", "--work-dir"),
    ("quickstart", "--work-dir"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_file_in_the_way_of_the_folder_is_refused_without_pytorch(here, words):
    (here / "file").write_text("mine")
    lines = "import sys\nfrom tasks.cli import main\ntry:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    for folder in ("file", "file/run"):
        command = [sys.executable, "-c", lines, *words, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
        assert done.returncode == 1
        assert "file is a file, not a folder" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (here / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission_is_refused(ean, here):
    (here / "locked").mkdir(mode=0o500)
    assert "locked/run cannot be written: no permission in" in ean("train", DIGITS, "--work-dir", "locked/run")[0]


def test_a_folder_that_another_training_uses_is_refused_and_left_as_it_is(ean, here):
    (here / "run").mkdir()
    (here / "run" / "other.txt").write_text("of the other")
    with file_lock(here / "run" / "train.lock"):
        code, out = ean("train", DIGITS, "--work-dir", "run")
    assert code.startswith("ean train: another process is training in run; wait for it")
    assert out == ""
    assert {path.name for path in (here / "run").iterdir()} <= {"other.txt", "train.lock"}


def test_a_start_that_fails_late_leaves_no_new_folder_and_an_old_one_as_it_was(ean, here):
    base = find_config(DIGITS)
    (here / "mine.py").write_text(f"_base_ = {str(base)!r}\ncustom_hooks = [dict(type='Refusing')]\n")
    code, _ = ean("train", "mine.py")
    assert code == "ean train: refused once everything is built"
    assert [path.name for path in here.iterdir()] == ["mine.py"]
    (here / "old").mkdir()
    (here / "old/notes.txt").write_text("mine")
    ean("train", "mine.py", "--work-dir", "old")
    assert [path.name for path in (here / "old").iterdir()] == ["notes.txt"]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_refused_resume_changes_nothing_of_the_run(ean, here, digits_supernet):
    shutil.copytree(digits_supernet.parent, here / "run")
    before = contents(here / "run")
    own = here / f"{SUPERNET}.py"  # the name under which the run keeps its config
    assert own.name in {str(path) for path in before}
    own.write_text(f"_base_ = {str(find_config(SUPERNET))!r}\ncustom_hooks = [dict(type='Refusing')]\n")
    words = ("train", own, "--work-dir", "run", "--resume", "--cfg-options", "train_cfg.max_epochs=1")
    refusals = {
        "optim_wrapper.optimizer.lr=7": "run holds a run with",
        "train_cfg.val_interval=3": "refused once everything is built",
    }
    for option, message in refusals.items():
        assert message in ean(*words, option)[0]
        assert contents(here / "run") == before
    assert ean(*words, "train_cfg.val_interval=3", "custom_hooks=[]")[0] == 0
    assert "val_interval=3" in (here / "run" / own.name).read_text()


def test_a_test_leaves_the_config_of_the_training(ean, here, digits_supernet):
    shutil.copytree(digits_supernet.parent, here / "run")
    before = contents(here / "run")
    assert ean("test", SUPERNET, "run", "--cfg-options", "test_dataloader.batch_size=100")[0] == 0
    after = contents(here / "run")
    assert {path: after[path] for path in before} == before
    assert Path("test.json") in after
    assert ean("test", SUPERNET, "run", "--work-dir", "other")[0] == 0
    assert (here / f"other/{SUPERNET}.py").is_file()


def test_a_start_that_fails_removes_nothing_that_others_wrote_meanwhile(tmp_path):
    folder = tmp_path / "run"

    def start():
        logs = folder / "20260101_000000/vis_data"
        logs.mkdir(parents=True)
        for config in (logs / "config.py", folder / "resnet20_se_digits.py"):
            config.write_text("model = None")
        for name in ("timing.json", "mine.py"):
            (folder / name).write_text("of another command")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), nothing_left(folder):
        start()
    assert sorted(path.name for path in folder.iterdir()) == ["mine.py", "timing.json"]


def test_damaged_weights_are_named_before_anything_is_built(ean, here):
    (here / "damaged.pth").write_text("damaged")
    code, out = ean("train", DIGITS, "--cfg-options", "load_from=damaged.pth")
    assert code.startswith("ean train: damaged.pth cannot be read as plain weights")
    assert out == ""
    assert ean("test", DIGITS, "damaged.pth", "--work-dir", "new")[0].startswith("ean test: damaged.pth cannot be")
    assert [path.name for path in here.iterdir()] == ["damaged.pth"]


def test_a_training_that_fails_on_its_way_stays(ean, here):
    base = find_config(DIGITS)
    (here / "mine.py").write_text(f"_base_ = {str(base)!r}\ncustom_hooks = [dict(type='Failing')]\n")
    code, _ = ean("train", "mine.py", "--work-dir", "run", "--cfg-options", "train_cfg.max_epochs=2")
    assert code == "ean train: the second epoch fails"
    assert Run(here / "run").latest.name == "epoch_1.pth"


def test_the_folder_of_a_run_stands_for_its_checkpoint_in_load_from_and_supernet(ean, here, digits_supernet):
    shutil.copytree(digits_supernet.parent, here / "supernet")
    options = ("train_cfg.max_epochs=1", "load_from=supernet", "optim_wrapper.optimizer.lr=0", "param_scheduler=None")
    code, _ = ean("train", SUPERNET, "--work-dir", "run", "--cfg-options", *options)
    assert code == 0
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (digits_supernet, "run/epoch_1.pth"))
    assert torch.equal(before["fc.weight"], after["fc.weight"])
    few = ("search.strategy.type=random", "search.strategy.evaluations=3", "search.finalists.count=1")
    words = ("search", "search_resnet20_se_digits", "--supernet", "supernet", "--work-dir", "found")
    assert ean(*words, "--cfg-options", *few, "search.finalists.images=50", "search.scores=scores")[0] == 0
    assert json.loads((here / "found/search.json").read_text())["supernet"] == "supernet/epoch_1.pth"
    assert (
        ean("search", "search_resnet20_se_digits", "--supernet", "nothing")[0] == "ean search: no checkpoint at nothing"
    )
    wrong = ("search.strategy.evaluatons=3", "search.rul=front")
    for option in wrong:
        code, _ = ean(*words, "--cfg-options", option)
        assert "did you mean 'evaluations'" in code or "did you mean 'rule'" in code


@pytest.mark.parametrize("rise", [0.5, 0.25])
def test_a_training_of_two_iterations_works(ean, here, rise):
    options = ("train_cfg.max_epochs=1", "train_dataloader.batch_size=700", f"param_scheduler.pct_start={rise}")
    code, _ = ean("train", DIGITS, "--work-dir", "run", "--cfg-options", *options, "model.backbone.scheme=none")
    assert code == 0
    assert Run(here / "run").record["epochs"] == 1

"""Segmentors trained by their packaged configs, on drawn pictures, through the commands."""

import csv
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import HOOKS
from PIL import Image

from ean_core.common.config import load_config
from ean_core.inference.export import export_backbone
from ean_core.runs.training import run_training
from tasks.segmentation.segmenter import Segmenter

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "resnet20_se_voc2012"
CROP = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomResize", "scale": (256, 64), "ratio_range": (0.8, 1.2), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (48, 48)},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PackSegInputs"},
]
SMALL = """
_base_ = {base!r}
image_size = (48, 48)
model = dict(data_preprocessor=dict(size=(48, 48)), test_cfg=dict(shorter_side=64), decode_head=dict(channels=16))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(pipeline={pipeline!r}))
test_dataloader = dict(num_workers=0)
train_cfg = dict(max_epochs={epochs})
"""
EPOCHS = 4
#: The program `ean`, killed in the third epoch, of 5 iterations each.
KILLED = """
import os, signal, sys
from ean_core.runs.hooks import DropoutSeedHook
from tasks.cli import main

DropoutSeedHook.after_train_iter = (
    lambda hook, runner, *_, **__: runner.iter == 12 and os.kill(os.getpid(), signal.SIGKILL)
)
main(sys.argv[1:])
"""


def write_config(folder, name=CONFIG, epochs=EPOCHS):
    """A user's file, that makes a packaged config small."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"small_{name}.py"
    base = ROOT / "configs" / "segmentation" / f"{name}.py"
    path.write_text(SMALL.format(base=str(base), pipeline=CROP, epochs=epochs))
    return path


@pytest.fixture
def own_data(data, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))


def run_script(name, *words):
    """A script of the task, in this process; its exit status."""
    script = str(ROOT / "tasks/segmentation" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
    return ended.value.code


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run in one go, by the script."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EAN_DATA", str(data))
        assert not run_script("train.py", config, "--work-dir", folder / "run")
    return config, folder / "run"


@pytest.mark.usefixtures("own_data")
def test_a_killed_run_ends_as_one_that_was_not(trained, ean, tmp_path):
    config, whole = trained
    words = ["train", str(config), "--work-dir", str(tmp_path)]

    process = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, timeout=300, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
    assert sorted(path.name for path in tmp_path.glob("epoch_*.pth")) == ["epoch_1.pth", "epoch_2.pth"]
    status, output = ean(*words, "--resume")
    assert not status, (status, output)
    states = [
        torch.load(folder / f"epoch_{EPOCHS}.pth", weights_only=True)["state_dict"] for folder in (whole, tmp_path)
    ]
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


@pytest.mark.usefixtures("own_data")
def test_several_processes_train_as_torchrun_starts_them(tmp_path):
    """By the script, with torchrun's environment; torchrun itself runs in `tests/faults`."""
    config = write_config(tmp_path, epochs=2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    script = ROOT / "tasks/segmentation/train.py"
    words = [sys.executable, script, config, "--launcher", "pytorch", "--work-dir", tmp_path / "run"]
    processes = [
        subprocess.Popen(
            words,
            env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
        )
        for rank in ("0", "1")
    ]
    try:
        assert [process.wait(300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert (record["world_size"], record["epochs"], record["images"]) == (2, 2, 20)


def test_dropout_is_drawn_anew_in_each_iteration_and_the_same_after_a_resume():
    hook = HOOKS.build({"type": "DropoutSeedHook"})
    runner = SimpleNamespace(seed=0, iter=0, rank=0)

    def draw(**changes):
        vars(runner).update({"seed": 0, "iter": 0, "rank": 0, **changes})
        hook.before_train_iter(runner, 0)
        return torch.rand(()).item()

    first = draw(iter=5)
    assert len({first, draw(iter=6), draw(iter=5, rank=1), draw(iter=5, seed=1)}) == 4
    assert draw(iter=5) == first


@pytest.mark.usefixtures("own_data")
def test_evaluate_writes_a_row_of_table_5(trained, ean, capsys, tmp_path):
    config, folder = trained
    # The folder stands for its last checkpoint.
    assert not run_script("test.py", config, folder, "--rounds", "6", "--work-dir", tmp_path)
    output = capsys.readouterr().out
    assert json.loads((tmp_path / "test.json").read_text())["checkpoint"]["name"] == f"epoch_{EPOCHS}.pth"
    metrics = json.loads((tmp_path / "test.json").read_text())["metrics"]
    assert set(metrics) == {"mIoU", "mAcc", "aAcc"}
    row = next(csv.DictReader((tmp_path / "table5.csv").open()))
    assert (row["data"], row["network"]) == ("VOC 2012, 6 images of val", "ResNet-20 SE")
    assert (row["connection"], row["scheme"]) == ("EAN", "010-100-000")
    assert row["mIoU / mAcc / aAcc (%)"] == " / ".join(f"{metrics[name]:.2f}" for name in ("mIoU", "mAcc", "aAcc"))
    assert all("to" in row[title] for title in ("increment (%)", "deployed (%)"))
    classes = {line["class"]: line for line in csv.DictReader((tmp_path / "classes.csv").open())}
    ious = [float(line["IoU"]) for line in classes.values() if line["IoU"]]
    assert sum(ious) / len(ious) == pytest.approx(metrics["mIoU"], abs=0.01)
    record = json.loads((tmp_path / "table5.json").read_text())
    share = int(classes["background"]["annotated"]) / sum(int(line["annotated"]) for line in classes.values())
    assert record["constant_answer"]["aAcc"] == pytest.approx(100 * share)
    assert f"predicting background everywhere has mIoU {record['constant_answer']['mIoU']:.2f}" in output
    with Image.open(tmp_path / "predictions.png") as figure:
        assert figure.width > 800
    status, again = ean("test", config, folder / f"epoch_{EPOCHS}.pth", "--work-dir", tmp_path)
    assert not status, status
    assert f"mIoU {metrics['mIoU']:.2f} %" in again


def test_it_learns_what_is_drawn_and_predicts_from_its_folder(data, tmp_path, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    config = load_config(str(write_config(tmp_path, epochs=25)), ["optim_wrapper.optimizer.lr=1e-2"])
    run_training(config, tmp_path / "run")
    segmenter = Segmenter.load(str(tmp_path / "run"), device="cpu")
    shares = []
    for n in range(20, 26):  # the validation images
        with Image.open(data / f"VOCdevkit/VOC2012/SegmentationClass/2007_{n:06d}.png") as mask:
            truth = np.array(mask)
        found = segmenter(data / f"VOCdevkit/VOC2012/JPEGImages/2007_{n:06d}.jpg").labels
        there = (truth != 0) & (truth != 255)
        shares.append((found == truth)[there].mean())
    assert np.mean(shares) > 0.5


def test_weights_go_from_a_classifier_to_a_segmentor_and_on(data, tmp_path, monkeypatch):
    """A published classifier -> backbone by ean:// -> segmentor -> a file of its own -> prediction."""
    import zoo

    monkeypatch.setenv("EAN_DATA", str(data))
    options = ["optim_wrapper.optimizer.lr=1e-9", "train_cfg.max_epochs=2"]
    config = load_config(str(write_config(tmp_path)), options)
    final = run_training(config, tmp_path / "run")
    published = zoo.get_weights("ean_resnet20_se.cifar100").state_dict()
    state = torch.load(final, weights_only=True)["state_dict"]
    weights = [name for name in published if name.startswith("backbone.") and name.endswith("conv1.weight")]
    assert len(weights) == 10
    assert all(torch.allclose(state[name], published[name], atol=1e-5) for name in weights)
    export_backbone(config, final, tmp_path / "backbone.safetensors")
    again = ["model.backbone.init_cfg.checkpoint=" + str(tmp_path / "backbone.safetensors"), *options]
    second = run_training(load_config(str(write_config(tmp_path)), again), tmp_path / "second")
    resumed = torch.load(second, weights_only=True)["state_dict"]
    assert all(torch.allclose(resumed[name], state[name], atol=1e-5) for name in weights)
    assert Segmenter.load(str(second), device="cpu")(np.zeros((40, 60, 3), np.uint8)).labels.shape == (40, 60)


@pytest.mark.parametrize("attention", ["se", "sge", "dia"])
def test_the_papers_segmentor_trains(data, tmp_path, monkeypatch, attention):
    monkeypatch.setenv("EAN_DATA", str(data))
    path = write_config(tmp_path, f"resnet50_{attention}_voc2012", epochs=1)
    text = path.read_text().replace(
        "decode_head=dict(channels=16)",
        "decode_head=dict(in_channels=512, channels=16), "
        "auxiliary_head=dict(in_channels=256, channels=16), backbone=dict(base_channels=16, init_cfg=None)",
    )
    path.write_text(text)
    run_training(load_config(str(path)), tmp_path / "run")
    assert (tmp_path / "run/epoch_1.pth").is_file()


@pytest.mark.parametrize(("name", "kind"), [("ade20k", "ADE20KDataset"), ("cityscapes", "CityscapesDataset")])
def test_examples_of_other_data_sets_train(tmp_path, monkeypatch, name, kind):
    monkeypatch.setenv("EAN_DATA", str(tmp_path))
    config = load_config(f"resnet50_se_{name}", ["model.backbone.init_cfg=None", "model.backbone.base_channels=8"])
    config.model.decode_head.update(in_channels=256, channels=16)
    config.model.auxiliary_head.update(in_channels=128, channels=16)
    config.model.data_preprocessor.size = (48, 48)
    settings = config.train_dataloader.dataset.dataset
    assert settings.type == kind
    settings.pipeline = CROP[:1] + settings.pipeline[1:2] + CROP[2:]
    config.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    config.train_cfg.max_epochs = 1
    suffixes = ("_leftImg8bit.png", "_gtFine_labelTrainIds.png") if name == "cityscapes" else (".jpg", ".png")
    folders = [tmp_path / settings.data_root / settings.data_prefix[key] for key in ("img_path", "seg_map_path")]
    labels = np.random.default_rng(0).integers(0, 19, (60, 80), dtype=np.uint8)
    for n in range(2):
        for folder, suffix in zip(folders, suffixes, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(folder / f"{n}{suffix}")
    run_training(config, tmp_path / "run")
    assert (tmp_path / "run/epoch_1.pth").is_file()

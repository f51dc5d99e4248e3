"""Configs of mmsegmentation itself, iteration-based, with EANResNet in the README's two lines, through `ean`."""

import csv
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, MODELS, DefaultScope
from PIL import Image

from ean_core.common.config import load_config
from ean_core.runs.folder import Run
from ean_core.runs.training import run_training
from ean_core.watch.state import look
from tasks.segmentation.network import Segmentor
from tasks.segmentation.segmenter import Segmenter
from tasks.trained import load_network

from .drawn import write_voc
from .test_training import CROP

USERS = """
_base_ = {bases!r}
custom_imports = dict(imports=["ean_core"], allow_failed_imports=False)
model = dict(
    pretrained=None,
    backbone=dict(type="EANResNet", base_channels=8, norm_cfg=dict(type="BN")),
    decode_head=dict(num_classes=21, in_channels=256, channels=8, norm_cfg=dict(type="BN")),
    auxiliary_head=dict(num_classes=21, in_channels=128, channels=8, norm_cfg=dict(type="BN")),
    data_preprocessor=dict(size=(48, 48)))
data_root = {data!r}
train_dataloader = dict(
    batch_size=2, num_workers={workers}, persistent_workers={workers} > 0,
    dataset=dict(data_root=data_root, ann_file="ImageSets/Segmentation/train.txt", pipeline={pipeline!r}))
test_pipeline = [
    dict(type="LoadImageFromFile"), dict(type="Resize", scale=(256, 64), keep_ratio=True),
    dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=6, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=2, save_best="mIoU"), logger=dict(interval=1))
"""


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    """Eight drawn training images, and two to validate."""
    return write_voc(tmp_path_factory.mktemp("devkit"), images=(8, 2))


def write_users(folder, data, workers=0):
    (package,) = find_spec("mmseg").submodule_search_locations
    base = Path(package, ".mim/configs/_base_")
    if not base.is_dir():
        pytest.skip("this mmsegmentation comes without its configs")
    names = ("models/pspnet_r50-d8.py", "datasets/pascal_voc12.py", "default_runtime.py", "schedules/schedule_20k.py")
    bases = [str(base / name) for name in names]
    path = folder / "users.py"
    path.write_text(USERS.format(bases=bases, data=str(data), workers=workers, pipeline=CROP))
    return path


@pytest.fixture(scope="module")
def users(devkit, tmp_path_factory):
    return write_users(tmp_path_factory.mktemp("users"), devkit)


@pytest.fixture(scope="module")
def trained(users, tmp_path_factory):
    """A run in one go."""
    folder = tmp_path_factory.mktemp("whole")
    run_training(load_config(str(users)), folder)
    return folder


@HOOKS.register_module()
class StopInTheFifth(Hook):
    """As a kill in the fifth iteration, after the checkpoint of the fourth."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == 5:
            raise KeyboardInterrupt


def test_it_ends_with_record_progress_and_its_last_checkpoint(trained):
    run = Run(trained)
    assert run.latest.name == "iter_6.pth"
    assert run.best.name.startswith("best_mIoU_iter_")
    assert (run.record["epochs"], run.record["iterations"], run.record["images"]) == (None, 6, 8)
    assert [one["iteration"] for one in run.record["validations"]] == [3, 6]
    assert run.record["best"]["iteration"] in (3, 6)
    assert run.record["images_per_second"] == pytest.approx(12 / run.record["seconds"])
    assert (run.progress["iteration"], run.progress["iterations"], run.progress["finished"]) == (6, 6, True)
    assert look(trained).finished
    assert run.log().count("\n") == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_stopped_ends_as_one_that_did_not(devkit, tmp_path, ean, workers):
    """Its seed is drawn by the first start, and kept by the others."""
    path, folder, whole = write_users(tmp_path, devkit, workers), tmp_path / "run", tmp_path / "whole"
    stopped = load_config(str(path))
    stopped.custom_hooks = [{"type": "StopInTheFifth"}]
    with pytest.raises(KeyboardInterrupt):
        run_training(stopped, folder)
    assert Run(folder).latest.name == "iter_4.pth"
    message, _ = ean("train", path, "--work-dir", folder)
    assert "holds a run up to iter_4.pth; add --resume" in message
    status, output = ean("train", path, "--work-dir", folder, "--resume")
    assert not status, status
    assert f"trained: {folder}/iter_6.pth" in output
    assert f"best: {folder}/best_mIoU_iter_" in output
    run_training(load_config(str(path), [f"randomness.seed={Run(folder).record['seed']}"]), whole)
    states = [torch.load(Run(each).latest, weights_only=True) for each in (whole, folder)]
    first, second = (state["state_dict"] for state in states)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    momentum = [[kept["momentum_buffer"] for kept in state["optimizer"]["state"].values()] for state in states]
    assert all(torch.equal(one, other) for one, other in zip(*momentum, strict=True))
    assert states[0]["param_schedulers"] == states[1]["param_schedulers"]
    assert Run(folder).record["validations"] == Run(whole).record["validations"]
    assert Run(folder).progress["starts"] == 2


def test_its_checkpoint_is_tested_and_predicts(users, trained, devkit, tmp_path, ean):
    for checkpoint, name in ((trained / "iter_6.pth", "iter_6.pth"), (trained, Run(trained).best.name)):
        status, output = ean("test", users, checkpoint, "--work-dir", tmp_path)
        assert not status, status
        record = json.loads((tmp_path / "test.json").read_text())
        assert record["checkpoint"]["name"] == name
        assert f"mIoU {record['metrics']['mIoU']:.2f} %" in output
    image = devkit / "JPEGImages/2007_000000.jpg"
    status, _ = ean(
        "seg", "predict", image, "--model", trained / "iter_6.pth", "--out", tmp_path / "out", "--device", "cpu"
    )
    assert not status, status
    segmenter = Segmenter.load(str(trained / "iter_6.pth"), device="cpu")
    assert segmenter.classes[15] == "person"
    labels = segmenter(image).labels
    with Image.open(tmp_path / "out" / f"{image.name}.labels.png") as written:
        assert np.array_equal(written, labels)
    assert segmenter.network.test_cfg["shorter_side"] == 64  # of the test pipeline
    with DefaultScope.overwrite_default_scope("mmseg"):
        theirs = MODELS.build(load_config(str(users)).model).eval()
        (sample,) = [DATASETS.build(load_config(str(users)).test_dataloader.dataset)[0]]
    theirs.load_state_dict(torch.load(trained / "iter_6.pth", weights_only=True)["state_dict"])
    data = theirs.data_preprocessor({"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]}, False)
    expected = theirs.predict(data["inputs"], data["data_samples"])[0].pred_sem_seg.data[0].numpy()
    labels = segmenter(devkit / "JPEGImages/2007_000008.jpg").labels
    assert (expected == labels).mean() > 0.98  # OpenCV rounds differently when it resizes


def test_it_is_loaded_to_be_explained(trained):
    assert type(load_network(str(trained / "iter_6.pth"))) is Segmentor


def test_the_report_has_it(users, trained, tmp_path, ean):
    folder = tmp_path / "runs/one"
    shutil.copytree(trained, folder)
    assert not ean("test", users, folder)[0]
    status, _ = ean("report", folder.parent, "--out", tmp_path / "report")
    assert not status, status
    row = next(csv.DictReader((tmp_path / "report/table5.csv").open()))
    assert (row["source"], row["epochs"], row["iterations"], row["training images"]) == ("here", "1.5", "6", "8")

"""Counters trained by their packaged configs, on drawn crowds, through the commands."""

import csv
import io
import json
import logging
import runpy
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

import zoo
from ean_core.backbone import describe
from ean_core.common.config import load_config
from ean_core.runs.folder import Run
from ean_core.runs.training import run_training
from ean_core.weights.files import save_weights
from ean_core.weights.loading import load_weights
from tasks.crowd_counting import familiar
from tasks.crowd_counting.annotations import find_own, find_shanghaitech
from tasks.crowd_counting.counter import Counter
from tasks.crowd_counting.dataset import CrowdDataset
from tasks.crowd_counting.prepare import Kernel, prepare

from .drawn import write_part, write_pictures

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "resnet20_se_shanghaitech_b"
SMALL = [
    "train_dataloader.dataset.crop=[64,64]",
    "default_hooks.last.epochs=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
    "test_dataloader.num_workers=0",
    "train_cfg.val_interval=1",
    "image_size=[96,128]",
]
EPOCHS = 6
#: The program `ean`, killed before the validation of epoch 3.
KILLED = """
import os, signal, sys
from ean_core.runs.hooks import RunRecordHook
from tasks.cli import main

RunRecordHook.before_val = lambda hook, runner: runner.epoch == 3 and os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""
#: A published counter.
OTHER = "resnet20.shanghaitech_b"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """EAN_DATA with drawn pictures in ShanghaiTech's folders, prepared."""
    folder = tmp_path_factory.mktemp("data")
    write_part(folder / "ShanghaiTech", "B", (20, 4))
    out = folder / "crowd/shanghaitech"
    prepare(find_shanghaitech(folder / "ShanghaiTech"), folder / "ShanghaiTech", out, Kernel(sigma=4.0))
    return folder


@pytest.fixture
def own_data(data, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))


def run_script(name, *words):
    """A script of the task, in this process; its exit status."""
    script = str(ROOT / "tasks/crowd_counting" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
    return ended.value.code


def arguments(folder, epochs=EPOCHS):
    return ["--work-dir", folder, "--cfg-options", f"train_cfg.max_epochs={epochs}", *SMALL]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run in one go, by the script, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
        patch.setenv("EAN_DATA", str(data))
        assert not run_script("train.py", CONFIG, *arguments(folder))
    return folder, output.getvalue()


@pytest.mark.usefixtures("own_data")
def test_the_last_moving_average_represents_the_run_and_the_starting_weights_are_validated_too(trained):
    folder, output = trained
    record = json.loads((folder / "record.json").read_text())
    assert [one["epoch"] for one in record["validations"]] == list(range(EPOCHS + 1))
    assert "best" not in record
    assert Run(folder).chosen.name == f"epoch_{EPOCHS}.pth"
    checkpoint = torch.load(folder / f"epoch_{EPOCHS}.pth", weights_only=True)
    averaged, last = checkpoint["state_dict"], checkpoint["ema_state_dict"]
    assert not torch.equal(averaged["density.0.weight"], last["module.density.0.weight"])
    counter = Counter.load(str(folder))
    images = data_of(folder)
    errors = [abs(counter(image["inputs"].permute(1, 2, 0).numpy()).count - len(image["points"])) for image in images]
    expected = record["validation"]["count/MAE"]
    assert sum(errors) / len(errors) == pytest.approx(expected, rel=1e-4)
    assert f"MAE {expected:.2f} people" in output


def data_of(folder):
    settings = dict(Run(folder).record["settings"]["val_dataloader"]["dataset"])
    dataset = CrowdDataset(settings["split"], settings["root"], settings["part"])
    return [dataset[n] for n in range(len(dataset))]


@pytest.mark.usefixtures("own_data")
def test_a_run_killed_between_checkpoint_and_validation_ends_as_one_that_was_not(trained, ean, tmp_path):
    words = ["train", CONFIG, *map(str, arguments(tmp_path))]
    process = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, timeout=300, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
    assert (tmp_path / "epoch_3.pth").exists()
    status, output = ean(*words[:2], "--resume", *words[2:])
    assert not status, (status, output)
    whole, resumed = (json.loads((folder / "record.json").read_text()) for folder in (trained[0], tmp_path))
    assert resumed["validations"] == whole["validations"]
    states = [torch.load(f / f"epoch_{EPOCHS}.pth", weights_only=True) for f in (trained[0], tmp_path)]
    for part in ("state_dict", "ema_state_dict"):
        first, second = (state[part] for state in states)
        assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.usefixtures("own_data")
def test_test_measures_the_test_images_and_writes_a_row_of_table_3(trained, data, ean, capsys, tmp_path):
    folder, _ = trained
    last = f"epoch_{EPOCHS}.pth"
    options = ["--rounds", "6", "--against", OTHER, "--work-dir", tmp_path, "--cfg-options", *SMALL]
    # the published layout as it is, without preparing anything first
    assert not run_script("test.py", CONFIG, folder / last, "--data", data / "ShanghaiTech", *options)
    output = capsys.readouterr().out
    test = json.loads((tmp_path / "test.json").read_text())
    lines = list(csv.DictReader((tmp_path / "counts.csv").open()))
    assert [line["image"] for line in lines] == [f"B/test/IMG_{n}" for n in range(1, 5)]
    assert [int(line["people"]) for line in lines] == [3, 6, 9, 12]
    errors = [abs(float(line["counted"]) - int(line["people"])) for line in lines]
    assert test["metrics"]["count/MAE"] == pytest.approx(sum(errors) / 4, abs=1e-3)
    row = next(csv.DictReader((tmp_path / "table3.csv").open()))
    assert (row["data"], row["network"]) == ("ShanghaiTech B, 4 test images", "ResNet-20 SE")
    assert (row["connection"], row["scheme"]) == ("EAN", "010-100-000")
    metrics = test["metrics"]
    assert row["MAE / MSE (RMSE)"] == f"{metrics['count/MAE']:.1f} / {metrics['count/RMSE']:.1f}"
    assert all("to" in row[title] for title in ("increment (%)", "deployed (%)"))
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert (timing["batch"], timing["size"]) == (1, [96, 128])
    assert "MAE / MSE (RMSE)" in output
    low, high = test["intervals"]["count/MAE"]
    assert min(errors) - 1e-3 <= low < metrics["count/MAE"] < high <= max(errors) + 1e-3
    assert f"MAE {metrics['count/MAE']:.1f} [{low:.1f}, {high:.1f}] over 4 images" in output
    assert output.splitlines()[-1].startswith("count people with it: ean crowd predict IMAGES --model ")
    images = data / "ShanghaiTech/part_B/test_data/images"
    other = Counter.from_zoo(OTHER, device="cpu")
    theirs = [abs(other(images / f"IMG_{n}.jpg").count - 3 * n) for n in range(1, 5)]
    against = json.loads((tmp_path / "table3.json").read_text())["against"]
    assert against["MAE"]["mean"] == pytest.approx(sum(theirs) / 4, abs=1e-2)
    assert against["difference"]["mean"] == pytest.approx(metrics["count/MAE"] - sum(theirs) / 4, abs=1e-2)
    assert against["difference"]["low"] <= against["difference"]["mean"] <= against["difference"]["high"]
    assert f"MAE of {OTHER} " in output
    assert "4 images are too few to tell them apart" in output
    # and the same counter on what was prepared, by `ean test`, to which the folder stands for its last checkpoint
    status, again = ean("test", CONFIG, folder, "--work-dir", tmp_path / "again")
    assert not status, status
    assert f"MAE {metrics['count/MAE']:.2f} people [{low:.2f}, {high:.2f}]" in again


@pytest.mark.usefixtures("own_data")
def test_a_vanilla_counter_has_a_row_without_increments(ean, tmp_path):
    vanilla = ["model.backbone.scheme=none", "model.backbone.init_cfg=None"]
    options = [*SMALL, *vanilla, "train_cfg.max_epochs=2"]
    status, _ = ean("train", CONFIG, "--work-dir", tmp_path, "--cfg-options", *options)
    assert not status, status
    status, _ = ean("crowd", "evaluate", CONFIG, tmp_path, "--cfg-options", *options)
    assert not status, status
    assert json.loads((tmp_path / "test.json").read_text())["checkpoint"]["name"] == "epoch_2.pth"
    row = next(csv.DictReader((tmp_path / "table3.csv").open()))
    assert (row["network"], row["connection"]) == ("ResNet-20", "vanilla")
    assert "increment (%)" not in row
    assert not (tmp_path / "timing.json").exists()


def test_a_counter_learns_to_count_drawn_people(data, tmp_path, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    options = ["train_cfg.max_epochs=18", "optim_wrapper.optimizer.lr=5e-3", "train_dataloader.dataset.crop=[96,128]"]
    config = load_config(CONFIG, [*SMALL, *options, "train_cfg.val_interval=3"])
    run_training(config, tmp_path)
    record = json.loads((tmp_path / "record.json").read_text())
    manifest = json.loads((data / "crowd/shanghaitech/manifest.json").read_text())
    counts = {split: [e["heads"] for e in manifest["images"] if e["split"] == split] for split in ("train", "val")}
    mean = sum(counts["train"]) / len(counts["train"])
    naive = sum(abs(count - mean) for count in counts["val"]) / len(counts["val"])
    assert record["validation"]["count/MAE"] < 0.5 * naive
    count, density = Counter.load(str(tmp_path))(data / "ShanghaiTech/part_B/train_data/images/IMG_15.jpg")
    assert density.shape == (96, 128)
    assert 25 < count < 70  # 45 are drawn


def test_the_end_of_training_measures_the_chosen_checkpoint_and_a_command_does_so_later(
    data, ean, tmp_path, monkeypatch
):
    monkeypatch.setenv("EAN_DATA", str(data))
    monkeypatch.setattr(familiar, "LEAST_IMAGES", 10)  # there are 18
    options = [*SMALL, "train_cfg.max_epochs=2"]
    last = run_training(load_config(CONFIG, options), tmp_path)
    names = {f"familiar.{name}" for name in (*familiar.STATISTICS, familiar.ERRORS)}
    state = torch.load(last, weights_only=True)["state_dict"]
    assert names <= state.keys()
    assert not names & torch.load(tmp_path / "epoch_1.pth", weights_only=True)["state_dict"].keys()
    counter = Counter.load(str(tmp_path))
    images = data / "ShanghaiTech/part_B/train_data/images"
    validation = Run(tmp_path).validations[-1]
    assert counter.errors.mae.mean == pytest.approx(validation["count/MAE"], rel=1e-3)
    assert counter.standing.data == "ShanghaiTech B"
    assert counter(images / "IMG_15.jpg").familiar
    assert not counter(np.zeros((96, 128, 3), np.uint8)).familiar
    # once more by hand, for a checkpoint of before
    again = tmp_path / "again.pth"
    before = torch.load(last, weights_only=True)
    before["state_dict"] = {name: value for name, value in state.items() if name not in names}
    torch.save(before, again)
    assert Counter.load(str(again)).standing.mae is None
    status, output = ean("crowd", "characterize", CONFIG, again, "--cfg-options", *options)
    assert not status, status
    assert "2 validation images are too few, at least 10 are needed, to know the error of a count" in output
    measured = torch.load(again, weights_only=True)["state_dict"]
    assert all(torch.allclose(measured[name], state[name], rtol=1e-4, atol=1e-5) for name in names)


@pytest.mark.parametrize("attention", ["se", "sge", "dia"])
def test_the_papers_counter_trains_on_whole_pictures_one_by_one(data, tmp_path, monkeypatch, attention):
    monkeypatch.setenv("EAN_DATA", str(data))
    small = [option for option in SMALL if "crop" not in option]
    options = ["train_cfg.max_epochs=1", "model.backbone.init_cfg=None", "model.backbone.base_channels=16"]
    config = load_config(f"resnet50_{attention}_shanghaitech_b", [*small, *options])
    assert config.train_dataloader.batch_size == 1
    run_training(config, tmp_path)
    assert (tmp_path / "epoch_1.pth").is_file()


def test_a_counter_of_own_pictures_goes_on_from_the_zoos(tmp_path, monkeypatch):
    listed = write_pictures(tmp_path / "pictures", numbers=range(2, 14))
    lines = [f"{name},{x},{y}" for name, heads in listed.items() for x, y in heads]
    (tmp_path / "points.csv").write_text("\n".join(["image,x,y", *lines]))
    found = find_own(tmp_path / "pictures", tmp_path / "points.csv")
    prepare(found, tmp_path / "pictures", tmp_path / "crowd/own", Kernel(sigma=4.0))
    monkeypatch.setenv("EAN_DATA", str(tmp_path))
    options = [*SMALL, "train_cfg.max_epochs=2", "optim_wrapper.optimizer.lr=1e-9"]
    run_training(load_config("resnet20_se_crowd", options), tmp_path / "run")
    trained, published = (
        Counter.load(model).network.state_dict() for model in (str(tmp_path / "run"), "resnet20.shanghaitech_b")
    )
    weights = [name for name in published if name.startswith("density") and name.endswith("weight")]
    assert len(weights) == 2
    assert all(torch.allclose(trained[name], published[name], atol=1e-5) for name in weights)


@pytest.mark.parametrize(
    ("network", "counter"), [("resnet18", "ean_resnet18_se.shanghaitech_b"), ("resnet20", "resnet20.shanghaitech_b")]
)
def test_a_config_of_own_pictures_starts_from_the_published_counter_of_its_network(network, counter, tmp_path, caplog):
    """And weights of the data set's config fit without a remark, if they are of the same scheme."""
    config, trainer = load_config(f"{network}_se_crowd"), load_config(f"{network}_se_shanghaitech_b")
    assert counter in zoo.list_models(pretrained=True)
    assert (config.load_from, config.model.backbone.init_cfg) == (f"ean://{counter}", None)
    trainer.model.backbone.scheme = config.model.backbone.scheme
    trained, own = (MODELS.build({**each.model, "init_cfg": None}).eval() for each in (trainer, config))
    save_weights(trained.state_dict(), tmp_path / "counter.safetensors", describe(trained.backbone))
    with caplog.at_level(logging.WARNING):
        load_weights(own, tmp_path / "counter.safetensors", strict=True)
    assert not caplog.records
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(own(image), trained(image))


def test_the_folder_of_a_run_is_its_chosen_checkpoint(trained, tmp_path):
    folder, _ = trained
    assert Counter.load(str(folder)).name == f"{folder.name}/epoch_{EPOCHS}.pth"
    with pytest.raises(FileNotFoundError, match="there is no checkpoint in the folder"):
        Counter.load(str(tmp_path))


def test_a_training_that_makes_its_network_worse_says_so(trained, data, tmp_path, monkeypatch, ean):
    monkeypatch.setenv("EAN_DATA", str(data))
    start = trained[0] / f"epoch_{EPOCHS}.pth"
    options = [*SMALL, f"load_from={start}", "train_cfg.max_epochs=2", "optim_wrapper.optimizer.lr=1.0"]
    status, output = ean("train", CONFIG, "--work-dir", tmp_path / "worse", "--cfg-options", *options)
    assert not status
    first, _, last = Run(tmp_path / "worse").validations
    assert first["count/MAE"] == pytest.approx(Run(trained[0]).record["validation"]["count/MAE"], rel=1e-4)
    assert last["count/MAE"] > first["count/MAE"]
    text = f"was {first['count/MAE']:.2f} people before it and is {last['count/MAE']:.2f} people after it"
    assert text in "".join(path.read_text() for path in (tmp_path / "worse").rglob("*.log"))
    *_, suggested, end = output.splitlines()
    assert suggested.startswith(f"test it: ean test {CONFIG} ")
    assert end == (
        f"worse than before training: MAE on validation images was {first['count/MAE']:.2f} people and is "
        f"{last['count/MAE']:.2f} people; keep the weights that it started from, {start}"
    )
    assert f"before training: MAE {first['count/MAE']:.2f} people" in output


def test_a_training_on_five_own_images_works(tmp_path, monkeypatch, ean):
    monkeypatch.setenv("EAN_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    listed = write_pictures(tmp_path / "images", (3, 1, 5, 2, 4))
    lines = [f"{name},{x},{y}" for name, heads in listed.items() for x, y in heads]
    (tmp_path / "points.csv").write_text("\n".join(["image,x,y", *lines]))
    assert ean("crowd", "prepare", "--root", "images", "--points", "points.csv")[0] == 0
    options = ("train_cfg.max_epochs=5", *SMALL)  # an epoch is one iteration, of four images
    status, output = ean("train", "resnet20_se_crowd", "--work-dir", "run", "--cfg-options", *options)
    assert status == 0
    assert Run(tmp_path / "run").record["epochs"] == 5
    assert "test it" not in output  # all images are for training and validation
    assert "use it: ean crowd predict IMAGES --model run\n" in output

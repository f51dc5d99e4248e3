"""``ean explain``: several networks, side by side."""

import csv
import re
import shutil

import numpy as np
import pytest
from torch import nn

from ean_core.common.record import read_record
from ean_core.data.images import read_image
from tasks.cli import main
from tasks.crowd_counting.drawing import draw_crowd
from tasks.explain import MODELS, explain_picture, load_explainer

from .segmentation.drawn import draw

pytest.importorskip("captum", reason="explaining needs Captum")

COUNTERS = ("resnet20.shanghaitech_b", "ean_resnet18_se.shanghaitech_b")


@pytest.fixture
def explain(capsys):
    """``ean explain`` in this process; its exit status or message, and what it printed to both streams."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["explain", *map(str, words)])
        return ended.value.code, *(re.sub(r"\x1b\[[\d;]*m", "", text) for text in capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw_crowd(20, (96, 128), seed=1)[0].save(folder / "crowd.png")
    draw(1, (120, 160))[0].save(folder / "thing.png")
    return folder


def test_all_networks_explain_the_class_that_they_see_together(pictures, tmp_path):
    explainers = [load_explainer(model) for model in MODELS]
    pixels = read_image(pictures / "thing.png")
    found = explain_picture(explainers, pixels, "thing.png", None, tmp_path / "a.png")
    mean = np.mean([each.scores(each.prepare(pixels)[0]) for each in explainers], axis=0)
    assert {one.target for one in found} == {explainers[0].classes[mean.argmax()]}
    assert [one.connection for one in found] == ["vanilla", "Share-full SE", "EAN SE"]
    by_number = explain_picture(explainers, pixels, "thing.png", "7", tmp_path / "b.png")
    assert {one.target for one in by_number} == {explainers[0].classes[7]}


def test_the_command_writes_pictures_scores_and_a_record(explain, pictures, tmp_path):
    (pictures / "broken.jpg").write_bytes(b"no picture")
    (pictures / "clip.mp4").write_bytes(b"")
    words = [word for model in COUNTERS for word in ("--model", model)]
    status, printed, errors = explain(pictures, tmp_path / "nowhere.png", *words, "--out", tmp_path / "out")
    assert status == 1, (status, errors)
    assert "2 of 5 images explained" in printed
    assert "broken.jpg: cannot be read as an image" in errors
    assert "clip.mp4: a video is not an image; skipped" in errors
    assert "nowhere.png: there is no such file or folder; skipped" in errors
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"crowd.png.explained.png", "thing.png.explained.png", "explained.csv", "explained.json"}
    with (tmp_path / "out/explained.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["file"], line["model"]) for line in lines] == [
        (name, model) for name in ("crowd.png", "thing.png") for model in COUNTERS
    ]
    record = read_record(tmp_path / "out/explained.json")
    assert record["score"] == "people"
    assert [f"{one['score']}" for one in record["explanations"]] == [line["score"] for line in lines]
    for path in (pictures / "broken.jpg", pictures / "clip.mp4"):
        path.unlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", MODELS[0], "--model", COUNTERS[0]], "models of one task can be compared"),
        (["--model", MODELS[0], "--model", "resnet20.digits"], "models with the same classes can be compared"),
        (["--model", MODELS[0], "--target", "womman"], "woman"),
        (["--model", COUNTERS[0], "--target", "apple"], "counters have no classes, they explain the density"),
        (["--model", "resnet2.cifar100"], "resnet20.cifar100"),
    ],
)
def test_what_cannot_be_explained_is_said(explain, pictures, tmp_path, words, message):
    status, _, errors = explain(pictures, *words, "--out", tmp_path / "out")
    assert message in status  # which ends the process with status 1, and is written to its standard error
    assert "Traceback" not in status + errors
    assert not (tmp_path / "out").exists()


def test_networks_that_nothing_explains_are_refused(monkeypatch):
    monkeypatch.setattr("tasks.explain.load_network", lambda model: nn.Linear(1, 1))
    with pytest.raises(ValueError, match="mine is a Linear; only classifiers, counters, segmentors can be explained"):
        load_explainer("mine")


def test_what_it_made_is_no_picture_to_explain(explain, pictures, tmp_path):
    shutil.copy(pictures / "thing.png", tmp_path)
    for _ in range(2):
        _, printed, errors = explain("--model", MODELS[0], tmp_path, "--out", tmp_path)
        assert "1 of 1 images explained" in printed, errors
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["thing.png", "thing.png.explained.png"]


def test_a_run_of_ones_own_is_explained_by_its_folder(ean, pictures, tmp_path):
    options = ["--cfg-options", "model.backbone.scheme=100-000-001", "train_cfg.max_epochs=1"]
    assert ean("train", "resnet20_se_digits", "--work-dir", tmp_path / "run", *options)[0] == 0
    explainer = load_explainer(str(tmp_path / "run"))
    assert explainer.title == "EAN SE"
    inputs, shown = explainer.prepare(read_image(pictures / "thing.png"))
    assert (tuple(inputs.shape), shown.shape) == ((1, 1, 8, 8), (8, 8, 3))
    assert explainer.heat(inputs, 9).shape == (8, 8)

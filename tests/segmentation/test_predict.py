import csv
import re

import numpy as np
import pytest
from PIL import Image

from tasks.cli import main
from tasks.segmentation.voc import CLASSES

from .drawn import draw


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["seg", "predict", *map(str, words)])
    return ended.value.code, *(re.sub(r"\x1b\[[\d;]*m", "", text) for text in capsys.readouterr())


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    draw(0)[0].save(folder / "a.png")
    draw(1)[0].save(folder / "more/a.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture, either")
    return folder


def test_a_folder_is_labelled_and_what_is_broken_is_named(pictures, segmentor_file, segmenter, tmp_path, capsys):
    out = tmp_path / "out"
    code, output, errors = run(capsys, pictures, "--model", segmentor_file, "--out", out, "--device", "cpu")
    assert code == 1
    assert "broken.jpg: cannot be read as an image" in errors
    assert "2 of 3 labeled by segmentor.safetensors" in output
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {
        "a.png.labels.png",
        "a.png.overlay.jpg",
        "more/a.jpg.labels.png",
        "more/a.jpg.overlay.jpg",
        "classes.csv",
    }
    with Image.open(out / "a.png.labels.png") as image:
        labels = np.array(image)
        assert image.mode == "P"
    assert np.array_equal(labels, segmenter(pictures / "a.png").labels)
    lines = [line for line in csv.DictReader((out / "classes.csv").open()) if line["file"].endswith("a.png")]
    for line in lines:
        assert float(line["share"]) == pytest.approx((labels == CLASSES.index(line["class"])).mean(), abs=1e-4)
    assert sum(float(line["share"]) for line in lines) == pytest.approx(1, abs=1e-3)


def test_videos_are_said_to_be_none_of_it(pictures, segmentor_file, tmp_path, capsys):
    (pictures / "clip.mp4").write_bytes(b"")
    words = (pictures / "a.png", pictures / "clip.mp4", "--model", segmentor_file, "--out", tmp_path / "out")
    code, output, errors = run(capsys, *words)
    assert (code, "1 of 2 labeled" in output, "clip.mp4: is a video or a webcam" in errors) == (1, True, True)


def test_what_was_written_is_not_read_again(pictures, segmentor_file, capsys):
    for _ in range(2):
        _, output, _ = run(capsys, pictures, "--model", segmentor_file, "--out", pictures, "--device", "cpu")
        assert "2 of 3 labeled" in output


def test_nothing_to_label_is_an_error(segmentor_file, tmp_path, capsys):
    gone = tmp_path / "gone.jpg"
    code, _, _ = run(capsys, gone, "--model", tmp_path / "none.pth", "--out", tmp_path / "out")
    assert code == f"ean seg predict: there is no such file or folder: {gone}"
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "a.png.labels.png").write_bytes(b"")
    assert not (tmp_path / "out").exists()
    code, _, _ = run(capsys, tmp_path, "--model", segmentor_file)
    assert code == f"ean seg predict: no image in {tmp_path}; supported: " + code.rpartition("supported: ")[2]

import json
import multiprocessing
import os
import re
import signal
import time

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from ean_core.common.errors import InUseError
from tasks.cli import main
from tasks.segmentation.prepare import prepare, read_manifest
from tasks.segmentation.voc import as_image, find_voc

from .drawn import draw, write_sbd, write_voc


@pytest.fixture
def devkit(tmp_path):
    return write_voc(tmp_path, (12, 3))


def run(devkit, out, **options):
    root = devkit.parents[1]
    return prepare(find_voc(root), root, out, **options)


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.suffix in (".png", ".txt")
    }


def test_masks_lists_and_manifest_are_written(devkit, tmp_path):
    out = tmp_path / "out"
    manifest = run(devkit, out)
    assert (manifest["made"], manifest["problems"]) == (15, [])
    assert {name: len(images) for name, images in manifest["lists"].items()} == {
        "train": 12,
        "val": 3,
        "fit": 11,
        "held_out": 1,
    }
    for name, images in manifest["lists"].items():
        assert (out / "lists" / f"{name}.txt").read_text().split() == images
    assert sorted(manifest["lists"]["fit"] + manifest["lists"]["held_out"]) == manifest["lists"]["train"]
    for entry in read_manifest(out)["images"]:
        with Image.open(out / entry["file"]) as image:
            labels = np.array(image)
            assert image.mode == "P"
        assert np.array_equal(labels, draw(int(entry["name"][-6:]))[1])
        assert entry["pixels"] == [int((labels == label).sum()) for label in range(21)]
        assert (out / manifest["root"] / entry["image"]).is_file()


def test_a_second_run_writes_only_what_has_changed(devkit, tmp_path):
    out = tmp_path / "out"
    run(devkit, out)
    assert run(devkit, out)["made"] == 0
    labels = draw(3)[1]
    labels[0, 0] = 20
    as_image(labels).save(devkit / "SegmentationClass/2007_000003.png")
    (out / "masks/2007_000004.png").write_bytes((out / "masks/2007_000004.png").read_bytes()[:60])
    assert run(devkit, out)["made"] == 2
    assert run(devkit, out)["made"] == 0


def test_what_is_gone_is_removed(devkit, tmp_path):
    out = tmp_path / "out"
    write_sbd(tmp_path, devkit, ["2008_000020"])
    assert len(run(devkit, out)["lists"]["trainaug"]) == 13
    (tmp_path / "benchmark_RELEASE/dataset/cls/2008_000020.mat").unlink()
    manifest = run(devkit, out)
    assert "trainaug" not in manifest["lists"]
    assert not (out / "lists/trainaug.txt").exists()
    assert not (out / "masks/2008_000020.png").exists()


def test_processes_make_the_same_files(devkit, tmp_path):
    run(devkit, tmp_path / "one")
    run(devkit, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_rgb_masks_are_converted(devkit, tmp_path):
    path = devkit / "SegmentationClass/2007_000002.png"
    with Image.open(path) as image:
        labels = np.array(image)
        image.convert("RGB").save(path)
    run(devkit, tmp_path / "out")
    with Image.open(tmp_path / "out/masks/2007_000002.png") as image:
        assert np.array_equal(np.array(image), labels)


def test_pairs_that_are_wrong_are_left_out_and_named(devkit, tmp_path):
    masks, images = devkit / "SegmentationClass", devkit / "JPEGImages"
    as_image(draw(0, (60, 70))[1]).save(masks / "2007_000000.png")
    as_image(np.full((60, 80), 30, np.uint8)).save(masks / "2007_000001.png")
    (images / "2007_000002.jpg").write_bytes((images / "2007_000002.jpg").read_bytes()[:900])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, as OpenCV does and a mask is not
    draw(3)[0].save(images / "2007_000003.jpg", exif=exif)
    manifest = run(devkit, tmp_path / "out")
    problems = {entry["file"]: entry["problem"] for entry in manifest["problems"]}
    folder = "VOCdevkit/VOC2012"
    assert set(problems) == {
        f"{folder}/SegmentationClass/2007_000000.png",
        f"{folder}/SegmentationClass/2007_000001.png",
        f"{folder}/JPEGImages/2007_000002.jpg",
        f"{folder}/SegmentationClass/2007_000003.png",
    }
    assert "is 70 x 60 pixels, its image" in problems[f"{folder}/SegmentationClass/2007_000000.png"]
    assert "labels other than 0 to 20" in problems[f"{folder}/SegmentationClass/2007_000001.png"]
    assert "cannot be read as an image" in problems[f"{folder}/JPEGImages/2007_000002.jpg"]
    assert "60 x 80 (upright)" in problems[f"{folder}/SegmentationClass/2007_000003.png"]
    assert all(text.endswith("; skipped") for text in problems.values())
    assert len(manifest["lists"]["train"]) == 8


def test_nothing_at_all_is_an_error(devkit, tmp_path):
    for path in (devkit / "SegmentationClass").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no image in .* could be prepared: .*cannot be read as a mask"):
        run(devkit, tmp_path / "out")


def test_one_process_at_a_time(devkit, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / "prepare.lock"), pytest.raises(InUseError, match="another process is preparing"):
        run(devkit, out)


def test_another_devkit_does_not_go_into_the_same_folder(devkit, tmp_path):
    run(devkit, tmp_path / "out")
    other = write_voc(tmp_path / "other", (2, 1))
    with pytest.raises(ValueError, match="was prepared from"):
        run(other, tmp_path / "out")


def test_a_folder_that_is_not_prepared_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="ean seg prepare --out"):
        read_manifest(tmp_path)


def alone(words):
    """A command in a process group of its own, with its workers."""
    os.setsid()
    main([str(word) for word in words])


def test_a_killed_run_goes_on(tmp_path):
    devkit = write_voc(tmp_path, (60, 3), size=(240, 320))
    out = tmp_path / "out"
    words = ["seg", "prepare", "--root", devkit.parent, "--out", out, "--workers", "2"]
    process = multiprocessing.get_context("fork").Process(target=alone, args=(words,))
    process.start()
    end = time.monotonic() + 60
    while len(list((out / "masks").glob("*.png"))) < 5:
        assert process.exitcode is None
        assert time.monotonic() < end
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    for path in (out / "masks").glob("*.png"):
        with Image.open(path) as image:
            image.load()  # whole
    root = devkit.parent
    manifest = prepare(find_voc(root), root, out)
    assert 0 < manifest["made"] < 63
    prepare(find_voc(root), root, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_the_command_says_what_it_found(devkit, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EAN_DATA", str(tmp_path))
    (devkit / "SegmentationClass/2007_000005.png").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["seg", "prepare", "--workers", "1"])
    output, errors = (re.sub(r"\x1b\[[\d;]*m", "", text) for text in capsys.readouterr())
    assert ended.value.code == 1
    assert "train 11 images, val 3 images" in output
    assert "14 of 14 files written, 1 problem, 1 file skipped\n" in output
    assert output.splitlines()[-1] == "train a segmentor: ean train resnet18_se_voc2012"
    assert "2007_000005.jpg: has no mask" in errors
    assert "no pixels of aeroplane" in errors
    assert json.loads((tmp_path / "segmentation/voc2012/manifest.json").read_text())["version"] == 1


def test_a_wrong_root_is_an_error_of_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="ean seg prepare: no folder at"):
        main(["seg", "prepare"])

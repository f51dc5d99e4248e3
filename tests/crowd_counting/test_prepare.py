import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from ean_core.common.errors import InUseError
from tasks.cli import main
from tasks.crowd_counting.annotations import find_own, find_shanghaitech
from tasks.crowd_counting.dataset import CrowdDataset
from tasks.crowd_counting.density import density_map
from tasks.crowd_counting.prepare import Kernel, prepare, read_manifest
from tasks.crowd_counting.prepared_file import read_prepared

from .drawn import write_part, write_pictures, write_truth

WHOLE = (slice(None), slice(None))


def ean(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.fixture
def root(tmp_path):
    write_part(tmp_path / "data", "A", (10, 2))
    write_part(tmp_path / "data", "B", (20, 3))
    return tmp_path / "data"


def prepared(root, out, **options):
    return prepare(find_shanghaitech(root), root, out, **options)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.h5")}


def test_a_file_a_picture_holds_points_density_and_where_they_are_from(root, tmp_path):
    manifest = prepared(root, tmp_path / "out")
    assert (len(manifest["images"]), manifest["made"], manifest["problems"]) == (35, 35, [])
    entry = next(entry for entry in manifest["images"] if entry["name"] == "B/train/IMG_3")
    points, density = read_prepared(tmp_path / "out" / entry["file"], WHOLE)
    assert (entry["heads"], entry["height"], entry["width"], len(points)) == (9, 96, 128, 9)
    assert density.dtype == np.float32
    assert np.allclose(density, density_map(points, (96, 128), 15), atol=1e-9)
    assert density.sum(dtype=float) == pytest.approx(9, rel=1e-6)
    with h5py.File(tmp_path / "out" / entry["file"]) as file:
        source = json.loads(file.attrs["source"])
        assert file["density"].compression == "gzip"
    assert source["image"] == "part_B/train_data/images/IMG_3.jpg"
    assert len(source["image_sha256"]) == len(source["truth_sha256"]) == 64
    assert source["sigma"] == 15.0


def test_part_a_has_adaptive_kernels_by_default_and_any_may_be_given(root, tmp_path):
    prepared(root, tmp_path / "out")
    points, density = read_prepared(tmp_path / "out/A/train/IMG_5.h5", WHOLE)
    assert np.allclose(density, density_map(points, (96, 128), "adaptive"), atol=1e-7)
    prepared(root, tmp_path / "other", kernel=Kernel(sigma=4.0))
    _, density = read_prepared(tmp_path / "other/A/train/IMG_5.h5", WHOLE)
    assert np.allclose(density, density_map(points, (96, 128), 4), atol=1e-7)


def test_a_tenth_of_the_training_images_validates_and_always_the_same(root, tmp_path):
    splits = {}
    for name in ("one", "two"):
        manifest = prepared(root, tmp_path / name, workers=2 if name == "two" else 1)
        splits[name] = {entry["name"]: entry["split"] for entry in manifest["images"]}
    assert splits["one"] == splits["two"]
    for part, expected in (("A", (9, 1, 2)), ("B", (18, 2, 3))):
        own = [split for name, split in splits["one"].items() if name.startswith(part)]
        assert tuple(own.count(split) for split in ("train", "val", "test")) == expected


@pytest.mark.parametrize(("part", "images", "expected"), [("A", 300, (270, 30)), ("B", 400, (360, 40))])
def test_the_splits_are_as_large_as_the_papers(part, images, expected):
    from tasks.crowd_counting.prepare import _choose_validation

    entries = [{"name": f"{part}/train/IMG_{n}", "part": part, "split": "train"} for n in range(images)]
    _choose_validation(entries)
    found = [entry["split"] for entry in entries]
    assert (found.count("train"), found.count("val")) == expected


def test_a_second_run_writes_only_what_changed(root, tmp_path):
    out = tmp_path / "out"
    prepared(root, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    assert prepared(root, out)["made"] == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")} == before
    write_truth(root / "part_B/train_data/ground-truth/GT_IMG_4.mat", [[1.5, 2.5]])
    Image.new("RGB", (30, 20)).save(root / "part_A/train_data/images/IMG_1.jpg")
    (out / "A/train/IMG_2.h5").unlink()
    (out / "A/train/IMG_3.h5").write_bytes(b"damaged")
    manifest = prepared(root, out)
    changed = {path.relative_to(out).as_posix() for path, stamp in before.items() if path.stat().st_mtime_ns != stamp}
    assert manifest["made"] == 4
    assert changed == {"B/train/IMG_4.h5", "A/train/IMG_1.h5", "A/train/IMG_2.h5", "A/train/IMG_3.h5"}
    assert next(entry["heads"] for entry in manifest["images"] if entry["name"] == "B/train/IMG_4") == 1
    assert prepared(root, out, kernel=Kernel(sigma=3.0))["made"] == 35


def test_what_is_gone_from_the_data_is_gone_from_the_folder_and_nothing_else(root, tmp_path):
    out = tmp_path / "out"
    prepared(root, out)
    (out / "B/train/mine.h5").write_bytes(b"of someone else")
    for path in (root / "part_B/train_data").rglob("*IMG_7.*"):
        path.unlink()
    assert len(prepared(root, out)["images"]) == 34
    assert not (out / "B/train/IMG_7.h5").exists()
    assert (out / "B/train/mine.h5").exists()


def test_problems_are_named_by_file_and_the_rest_is_prepared(root, tmp_path, capsys):
    b = root / "part_B/train_data"
    (b / "images/IMG_1.jpg").write_bytes(b"no picture")
    (b / "images/IMG_2.jpg").write_bytes((b / "images/IMG_3.jpg").read_bytes()[:300])
    (b / "ground-truth/GT_IMG_3.mat").write_bytes(b"")
    (b / "ground-truth/GT_IMG_4.mat").unlink()
    write_truth(b / "ground-truth/GT_IMG_5.mat", [[5, 5], [-3, 5], [5, 500]])
    write_truth(b / "ground-truth/GT_IMG_6.mat", [[5, 5]], number=7)
    (b / "images/IMG_7.jpg").unlink()
    assert ean("crowd", "prepare", "--root", root, "--out", tmp_path / "out", "--workers", "2") == 1
    printed = capsys.readouterr()
    names = [line.split(":")[0].rpartition("/")[2] for line in printed.err.strip().splitlines()]
    skipped = [*(f"GT_IMG_{n}.mat" for n in (3, 7)), *(f"IMG_{n}.jpg" for n in (1, 2, 4))]
    assert names == [*skipped, "GT_IMG_5.mat", "GT_IMG_6.mat"]
    assert "has 2 of 3 points outside of part_B/train_data/images/IMG_5.jpg (128 x 96); moved to" in printed.err
    assert "GT_IMG_6.mat: states 7 heads but has 1 points; the points are used" in printed.err
    assert "30 of 30 files written, 7 problems, 5 files skipped\n" in printed.out
    assert printed.out.splitlines()[-1].startswith("train a counter: ")
    manifest = read_manifest(tmp_path / "out")
    assert len(manifest["images"]) == 35 - 5
    assert len(manifest["problems"]) == 7
    assert next(e["outside"] for e in manifest["images"] if e["name"] == "B/train/IMG_5") == 2


def test_remarks_are_not_a_failure(root, tmp_path, capsys):
    write_truth(root / "part_B/train_data/ground-truth/GT_IMG_6.mat", [[5, 5]], number=7)
    assert ean("crowd", "prepare", "--root", root, "--out", tmp_path / "out", "--workers", "1") == 0
    assert "35 of 35 files written, 1 problem\n" in capsys.readouterr().out


def test_outside_points_count_or_not_by_the_rule(root, tmp_path):
    write_truth(root / "part_B/train_data/ground-truth/GT_IMG_5.mat", [[5, 5], [-3, 5], [5, 500]])
    for rule, heads in (("clamp", 3), ("drop", 1), ("keep", 3)):
        prepared(root, tmp_path / rule, kernel=Kernel(outside=rule))
        points, density = read_prepared(tmp_path / rule / "B/train/IMG_5.h5", WHOLE)
        assert len(points) == heads
        expected = {"clamp": 3, "drop": 1, "keep": 1.4}[rule]  # the head at the left brings not quite a half
        assert density.sum() == pytest.approx(expected, abs=0.2 if rule == "keep" else 1e-5)


def test_own_pictures_are_prepared_by_the_same_command(tmp_path, capsys):
    listed = write_pictures(tmp_path / "pictures", numbers=[4, 0, *range(1, 9)])
    (tmp_path / "points.json").write_text(json.dumps({name: heads.tolist() for name, heads in listed.items()}))
    words = ("--root", tmp_path / "pictures", "--points", tmp_path / "points.json", "--out", tmp_path / "out")
    assert ean("crowd", "prepare", *words) == 0
    printed = capsys.readouterr().out
    assert "own images: train 9 images" in printed
    roots = " ".join(f"{name}_dataloader.dataset.root={tmp_path / 'out'}" for name in ("train", "val", "test"))
    assert printed.splitlines()[-1] == f"train a counter: ean train resnet18_se_crowd --cfg-options {roots}"
    manifest = read_manifest(tmp_path / "out")
    assert {entry["image"]: entry["heads"] for entry in manifest["images"]} == {n: len(h) for n, h in listed.items()}
    _, density = read_prepared(tmp_path / "out/own/1.png.h5", WHOLE)
    assert (density.shape, density.max()) == ((64, 96), 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--root", "nowhere"], "no folder at nowhere; give that of"),
        (["--root", "."], "no part of ShanghaiTech in"),
        (["--points", "p.csv"], "give the folder of your images, too: --root IMAGES --points FILE"),
        (["--root", ".", "--sigma", "wide"], "--sigma must be a number of pixels or adaptive, got 'wide'"),
        (["--root", ".", "--outside", "wrap"], "unknown rule for points outside of the image 'wrap'"),
    ],
)
def test_a_wrong_argument_is_answered_with_what_to_type(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in str(ean("crowd", "prepare", *words))


def test_a_folder_where_nothing_can_be_read_is_an_error(tmp_path):
    part = write_part(tmp_path, images=(2, 0))
    for path in part.rglob("*.mat"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no image in .* could be prepared: .*GT_IMG_1.mat"):
        prepared(tmp_path, tmp_path / "out")


def test_another_data_set_is_not_prepared_into_a_folder_in_use(root, tmp_path):
    prepared(root, tmp_path / "out")
    write_part(tmp_path / "other", images=(2, 0))
    with pytest.raises(ValueError, match=r"was prepared from .*data, not from .*other; give another --out"):
        prepared(tmp_path / "other", tmp_path / "out")


def test_two_at_once_are_refused_by_name(root, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/prepare.lock"), pytest.raises(InUseError, match="another process is preparing"):
        prepared(root, tmp_path / "out")


def alone(words):
    """A command in a process group of its own, with its workers."""
    os.setsid()
    main([str(word) for word in words])


def test_a_killed_run_leaves_no_half_file_and_the_next_goes_on(tmp_path):
    root, out = tmp_path / "data", tmp_path / "out"
    write_part(root, images=(40, 0), size=(600, 800))
    whole = tmp_path / "whole"
    prepared(root, whole, workers=2)
    words = ["crowd", "prepare", "--root", root, "--out", out, "--workers", "2"]
    process = multiprocessing.get_context("fork").Process(target=alone, args=(words,))
    process.start()
    end = time.monotonic() + 60
    while len(contents(out)) < 3:
        assert process.exitcode is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    left = contents(out)
    assert 3 <= len(left) < 40, "killed too late to test anything"
    for name in left:
        assert read_prepared(out / name, WHOLE)[1].shape == (600, 800)
    assert prepared(root, out, workers=2)["made"] == 40 - len(left)
    assert set(contents(out)) == set(contents(whole))
    assert list(out.rglob("*.part")) == []
    for name in contents(out):
        assert np.array_equal(read_prepared(out / name, WHOLE)[1], read_prepared(whole / name, WHOLE)[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a manifest of prepared images"),
        ("[]", "is not a manifest of prepared images"),
        ('{"version": 1}', "is not a manifest of prepared images"),
        ('{"version": 0, "root": "x", "images": []}', "has version 0, expected 1"),
        ('{"version": 1, "root": "x", "images": [{"file": "../a.h5", "image": "a"}]}', "names a file outside"),
        ('{"version": 1, "root": "x", "images": [{"file": "a.h5", "image": "/etc/passwd"}]}', "names a file outside"),
    ],
)
def test_a_manifest_that_is_none_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path)


def test_a_missing_or_damaged_file_says_what_to_run(root, tmp_path):
    prepared(root, tmp_path / "out")
    path = tmp_path / "out/B/train/IMG_3.h5"
    content = path.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"IMG_3.h5 is damaged.*run `ean crowd prepare` again"):
            read_prepared(path, WHOLE)
    with pytest.raises(FileNotFoundError, match="run `ean crowd prepare` again"):
        read_prepared(tmp_path / "gone.h5")
    with pytest.raises(FileNotFoundError, match="holds no prepared images"):
        read_manifest(tmp_path)


@pytest.mark.skipif(not Path(os.environ.get("EAN_DATA", "/nowhere"), "ShanghaiTech").is_dir(), reason="needs EAN_DATA")
def test_the_real_data_set_is_sound_and_split_as_in_the_paper():
    root = Path(os.environ["EAN_DATA"], "ShanghaiTech")
    found = find_shanghaitech(root)
    assert found.problems == []
    training = [image for image in found.images if (image.part, image.split) == ("B", "train")]
    assert len(training) == 400
    assert sum(len(image.heads()[0]) for image in training) == 49_151
    assert all(len(image.heads()[0]) == image.heads()[1] for image in training[:20])


def test_a_file_name_of_own_pictures_does_not_collide(tmp_path):
    for name in ("a.png", "a.jpg"):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "pictures" / name)
    (tmp_path / "p.csv").write_text("image,x,y\na.png,1,1\na.jpg,,\n")
    found = find_own(tmp_path / "pictures", tmp_path / "p.csv")
    manifest = prepare(found, tmp_path / "pictures", tmp_path / "out")
    assert {entry["file"]: entry["heads"] for entry in manifest["images"]} == {"own/a.png.h5": 1, "own/a.jpg.h5": 0}


@pytest.mark.parametrize(("number", "expected"), [(1, (1, 0)), (2, (1, 1)), (5, (4, 1)), (14, (13, 1)), (25, (23, 2))])
def test_of_few_pictures_one_validates(tmp_path, capsys, number, expected):
    listed = write_pictures(tmp_path / "p", numbers=[1] * number)
    (tmp_path / "p.json").write_text(json.dumps({name: heads.tolist() for name, heads in listed.items()}))
    words = ("--root", tmp_path / "p", "--points", tmp_path / "p.json", "--out", tmp_path / "out", "--workers", "1")
    assert ean("crowd", "prepare", *words) == 0
    splits = [entry["split"] for entry in read_manifest(tmp_path / "out")["images"]]
    assert (splits.count("train"), splits.count("val")) == expected
    assert ("no validation images to measure the error on" in capsys.readouterr().err) == (number == 1)


def test_validation_images_that_annotations_name_are_these(tmp_path):
    write_pictures(tmp_path / "p", numbers=[1] * 12)
    lines = [f"{n}.png,1,1,{'val' if n in (3, 4) else 'test' if n == 5 else ''}" for n in range(12)]
    (tmp_path / "p.csv").write_text("\n".join(["image,x,y,split", *lines]))
    manifest = prepare(find_own(tmp_path / "p", tmp_path / "p.csv"), tmp_path / "p", tmp_path / "out")
    splits = {entry["image"]: entry["split"] for entry in manifest["images"]}
    assert {name for name, split in splits.items() if split == "val"} == {"3.png", "4.png"}
    assert splits["5.png"] == "test"


def test_a_prepared_folder_behind_a_link_finds_its_pictures(tmp_path):
    write_part(tmp_path / "data", images=(4, 0))
    (tmp_path / "big/disk/deep").mkdir(parents=True)
    (tmp_path / "data/crowd").symlink_to(tmp_path / "big/disk/deep", target_is_directory=True)
    out = tmp_path / "data/crowd/out"
    prepared(tmp_path / "data", out)
    assert CrowdDataset("train", out)[0]["inputs"].shape == (3, 96, 128)
    assert prepared(tmp_path / "data", tmp_path / "big/disk/deep/out")["made"] == 0


def test_a_picture_too_large_for_the_memory_is_left_out_and_named(root, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("tasks.crowd_counting.prepare.density_map", full)
    with pytest.raises(ValueError, match=r"could be prepared: .*is too large for this machine's memory: 128 x 96"):
        prepared(root, tmp_path / "out")

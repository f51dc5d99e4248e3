"""Annotations that may not be pixels of the upright image: each kind is said with the names of its images."""

import json

import numpy as np
import pytest
from PIL import ExifTags, Image

from tasks.cli import main
from tasks.crowd_counting.annotations import find_own
from tasks.crowd_counting.prepare import prepare
from tasks.crowd_counting.prepared_file import read_prepared

from .annotated import coco, labelme, write_images, write_json


def doubts_of(tmp_path, points, size=(400, 300), turn=None):
    """Doubts about images with these points, and the manifest's problems."""
    for name in points:
        save_turned(tmp_path / "p" / name, size, turn)
    write_json(tmp_path / "points.json", points)
    manifest = prepare(find_own(tmp_path / "p", tmp_path / "points.json"), tmp_path / "p", tmp_path / "out")
    return manifest["doubts"]


def save_turned(path, size, turn=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if turn:
        exif[ExifTags.Base.Orientation] = turn
    Image.new("RGB", size).save(path, exif=exif)


def test_fractions_are_said(tmp_path):
    points = {"b.jpg": [[0.5, 0.25], [1, 0]], "a.jpg": [[0.1, 0.9]], "c.jpg": [[0.5, 7]], "d.jpg": []}
    assert doubts_of(tmp_path, points) == [
        "a.jpg, b.jpg: all coordinates are between 0 and 1, but points are in pixels; multiply x by the width of the "
        "image and y by its height"
    ]


def test_percentages_are_said_of_large_images_with_a_few_heads(tmp_path):
    points = {
        "a.jpg": [[5, 99.5], [50, 50], [100, 1]],
        "b.jpg": [[5, 99.5], [50, 50], [100.5, 1]],
        "c.jpg": [[5, 99.5], [50, 50]],
    }
    assert doubts_of(tmp_path, points) == [
        "a.jpg (400 x 300): no coordinate is past 100; if these are percentages, multiply x by width / 100 and y by "
        "height / 100"
    ]
    assert doubts_of(tmp_path / "small", points, size=(200, 299)) == []
    crowd = {"a.jpg": [[5 * n, 90 - 7 * n] for n in range(8)]}
    (doubt,) = doubts_of(tmp_path / "crowd", crowd, size=(200, 299))
    assert doubt.startswith("a.jpg (200 x 299): no coordinate is past 100; if these are percentages")
    assert doubts_of(tmp_path / "tiny", crowd, size=(96, 110)) == []


def test_duplicates_are_said_with_their_number_and_few_names(tmp_path):
    points = {f"{n}.jpg": [[200, 150]] * (n + 2) + [[300, 200]] for n in range(5)}
    assert doubts_of(tmp_path, points) == [
        "0.jpg (1), 1.jpg (2), 2.jpg (3) and 2 more images: points at the same place as another one; each is counted, "
        "so remove those that are not heads"
    ]
    assert doubts_of(tmp_path, points) == doubts_of(tmp_path, points)  # also where nothing is written anew


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_points_of_the_image_before_exif_turned_it_are_said(tmp_path, turn):
    (doubt,) = doubts_of(tmp_path, {"a.jpg": [[350, 20], [20, 150]]}, turn=turn)
    assert doubt.startswith("a.jpg (1 points outside): EXIF turns the image, and the points fit it only before that")
    assert "exiftool -Orientation=" in doubt
    assert doubts_of(tmp_path / "right", {"a.jpg": [[150, 350]]}, turn=turn) == []
    assert doubts_of(tmp_path / "nowhere", {"a.jpg": [[350, 350]]}, turn=turn) == []  # fit neither


@pytest.mark.parametrize("turn", [None, 1, 3])
def test_points_outside_of_an_image_that_is_not_turned_are_only_outside(tmp_path, turn):
    assert doubts_of(tmp_path, {"a.jpg": [[20, 350]]}, turn=turn) == []


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["labelme", "coco"])
def test_points_are_turned_where_the_stated_size_is_that_before_exif(tmp_path, kind, turn):
    save_turned(tmp_path / "a.jpg", (60, 40), turn)
    write_images(tmp_path, ["b.png"])
    heads = [[10.0, 20.0], [30.5, 5.0]]
    write_json(tmp_path / "p.json", coco() if kind == "coco" else labelme("a.jpg", heads))
    manifest = prepare(find_own(tmp_path, tmp_path / "p.json"), tmp_path, tmp_path / "out")
    assert manifest["doubts"] == [
        "a.jpg: the annotation states the size of the image before EXIF turns it; its points were turned with the image"
    ]
    stored = np.zeros((40, 60), np.uint8)
    for x, y in heads:
        stored[int(y), int(x)] = 255
    transpose = {5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}[turn]
    upright = np.asarray(Image.fromarray(stored).transpose(Image.Transpose[transpose]))
    points, _ = read_prepared(tmp_path / "out/own/a.jpg.h5")
    assert sorted(map(tuple, np.floor(points).astype(int).tolist())) == sorted(zip(*np.nonzero(upright.T), strict=True))


@pytest.mark.parametrize("turn", [None, 3, 6])
def test_points_of_the_upright_image_stay(tmp_path, turn):
    save_turned(tmp_path / "a.jpg", (40, 60) if turn == 6 else (60, 40), turn)
    write_json(tmp_path / "a.json", labelme("a.jpg", [[10.0, 20.0]]))
    manifest = prepare(find_own(tmp_path, tmp_path), tmp_path, tmp_path / "out")
    assert manifest["doubts"] == manifest["problems"] == []
    assert read_prepared(tmp_path / "out/own/a.jpg.h5")[0].tolist() == [[10, 20]]


def test_images_of_another_size_than_stated_are_said(tmp_path):
    save_turned(tmp_path / "a.jpg", (120, 80))
    write_json(tmp_path / "a.json", labelme("a.jpg", [[10.0, 20.0]]))
    manifest = prepare(find_own(tmp_path, tmp_path), tmp_path, tmp_path / "out")
    assert manifest["doubts"] == [
        "a.jpg (annotated at 60 x 40, is 120 x 80): scale the points, or give the images that were annotated"
    ]


def test_the_command_prints_them(tmp_path, capsys):
    save_turned(tmp_path / "p/a\x1b.jpg", (400, 300))
    (tmp_path / "p.json").write_text(json.dumps({"a\x1b.jpg": [[0.5, 0.5]]}))
    with pytest.raises(SystemExit) as ended:
        main(
            ["crowd", "prepare", "--root", f"{tmp_path}/p", "--points", f"{tmp_path}/p.json", "--out", f"{tmp_path}/o"]
        )
    assert ended.value.code == 0
    assert "warning: a\\x1b.jpg: all coordinates are between 0 and 1" in capsys.readouterr().err

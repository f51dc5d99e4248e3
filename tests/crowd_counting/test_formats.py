"""Annotation formats: each is read from files that the test writes, and what is not read is said."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ean_core.common.record import csv_text
from tasks.cli import main
from tasks.crowd_counting.annotations import find_own
from tasks.crowd_counting.formats import FORMATS, Pictures, read_annotations
from tasks.crowd_counting.prepare import prepare, read_manifest

from .annotated import HEADS, WRITERS, coco, cvat, labelme, save_v73, write_images, write_json
from .drawn import write_truth


def ean(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def heads_of(found):
    return {image.image.relative_to(image.image.parents[0]).name: image.heads()[0].tolist() for image in found.images}


def read_points(path):
    """Points and split by image name."""
    entries = read_annotations(path, Pictures(path.parent)).entries
    return {entry.name: (entry.points, entry.split) for _, entry in entries}


@pytest.mark.parametrize("given", ["beside the images", "elsewhere", "by name"])
@pytest.mark.parametrize("kind", WRITERS)
def test_heads_are_read_from_each_format_which_is_recognized(tmp_path, kind, given):
    images = write_images(tmp_path / "images")
    folder = images if given == "beside the images" else tmp_path / "annotations"
    name, write = WRITERS[kind]
    write(folder)
    found = find_own(images, folder, name if given == "by name" else None)
    assert heads_of(found) == HEADS
    assert found.problems == []
    files = 2 if name in ("labelme", "jhu", "nwpu", "qnrf", "mat") else 1
    assert found.source == f"annotation format: {name}, from {files} file{'s' * (files > 1)}"


@pytest.mark.parametrize("kind", ["csv tabs", "json", "coco boxes", "cvat points"])
def test_a_file_of_all_images_may_be_given_itself(tmp_path, kind):
    write_images(tmp_path / "images")
    WRITERS[kind][1](tmp_path / "annotations")
    (file,) = (tmp_path / "annotations").iterdir()
    assert heads_of(find_own(tmp_path / "images", file)) == HEADS


def test_the_command_says_the_format_and_needs_no_points_beside_the_images(tmp_path, capsys):
    images = write_images(tmp_path / "images")
    WRITERS["labelme point"][1](images)
    assert ean("crowd", "prepare", "--root", images, "--out", tmp_path / "out", "--workers", "1") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("annotation format: labelme, from 2 files\n")
    assert "own images: train 1 image with " in printed.out
    assert {entry["image"]: entry["heads"] for entry in read_manifest(tmp_path / "out")["images"]} == {
        name: len(heads) for name, heads in HEADS.items()
    }


def test_the_command_takes_a_format_by_name(tmp_path, capsys):
    images = write_images(tmp_path / "images")
    for kind in ("qnrf", "labelme point"):
        WRITERS[kind][1](images)
    words = ("crowd", "prepare", "--root", images, "--workers", "1", "--out")
    assert ean(*words, tmp_path / "out") == 0
    said = "annotation format: labelme, from 2 files; also there, not read: qnrf (2 files); --format chooses\n"
    assert capsys.readouterr().out.startswith(said)
    assert ean(*words, tmp_path / "other", "--format", "qnrf") == 0
    assert capsys.readouterr().out.startswith("annotation format: qnrf, from 2 files\n")
    assert "unknown annotation format 'qnf'; did you mean 'qnrf'" in ean(*words, tmp_path / "out", "--format", "qnf")
    assert "no annotations of format cvat" in ean(*words, tmp_path / "out", "--format", "cvat")


@pytest.mark.parametrize("name", ["p.yaml", "p.txt", "p.json", "p.xml", "p.csv", "folder"])
def test_what_has_no_known_format_is_answered_with_the_list(tmp_path, name):
    images = write_images(tmp_path / "images")
    if name == "folder":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("<a/>" if name == "p.xml" else '{"a": 1}')
    with pytest.raises(ValueError) as raised:
        find_own(images, tmp_path / name)
    assert all(f"{known} ({FORMATS[known].files})" in str(raised.value) for known in FORMATS)
    assert str(tmp_path / name) in str(raised.value)


def test_damaged_files_of_a_folder_are_named_and_the_others_read(tmp_path):
    images = write_images(tmp_path / "images", ["a.jpg", "b.png", "c.jpg"])
    WRITERS["labelme point"][1](images)
    (images / "c.json").write_text("{")
    (images / "d.json").write_text('{"x": 1}')
    found = find_own(images, images)
    assert heads_of(found) == HEADS
    texts = {path.name: text for path, text in found.problems}
    assert texts.keys() == {"c.jpg", "c.json", "d.json"}
    assert texts["c.json"].startswith("cannot be read as JSON")
    assert texts["d.json"] == "is not a LabelMe file: expected shapes and imagePath; skipped"


# ---------------------------------------------------------------- splits, sizes and names of each


def test_splits_are_those_of_folders_subsets_and_lists(tmp_path):
    for split in ("train", "val", "test"):
        write_images(tmp_path / "jhu" / split / "images", [f"{split}1.jpg"])
        (tmp_path / "jhu" / split / "gt").mkdir()
        (tmp_path / "jhu" / split / "gt" / f"{split}1.txt").write_text("1 2 3 4 0 0\n")
    for split in ("Train", "Test"):  # both have the same names
        write_images(tmp_path / "qnrf" / split, ["img_0001.jpg"])
        savemat(tmp_path / "qnrf" / split / "img_0001_ann.mat", {"annPoints": [[len(split), 1.0]]})
    write_images(tmp_path / "nwpu/images", ["0001.jpg", "0002.jpg"])
    for stem in ("0001", "0002"):
        write_json(tmp_path / f"nwpu/jsons/{stem}.json", {"img_id": f"{stem}.jpg", "points": [[1, 2]], "boxes": []})
    (tmp_path / "nwpu/train.txt").write_text("0002 1 3\n")
    (tmp_path / "nwpu/val.txt").write_text("0001 0 2\n")
    write_images(tmp_path / "coco", ["a.jpg", "b.png"])
    write_json(tmp_path / "coco/annotations/instances_val2017.json", coco())
    write_images(tmp_path / "cvat")
    (tmp_path / "cvat/p.xml").write_text(cvat().replace(' name="a.jpg"', ' name="a.jpg" subset="Validation"'))
    splits = {
        folder.name: {image.image.name: image.split for image in find_own(folder, folder).images}
        for folder in tmp_path.iterdir()
    }
    assert splits["jhu"] == {f"{split}1.jpg": split for split in ("train", "val", "test")}
    assert splits["nwpu"] == {"0001.jpg": "val", "0002.jpg": "train"}
    assert splits["coco"] == {"a.jpg": "val", "b.png": "val"}
    assert splits["cvat"] == {"a.jpg": "val", "b.png": "train"}
    qnrf = find_own(tmp_path / "qnrf", tmp_path / "qnrf").images
    assert [(image.split, image.heads()[0].tolist()) for image in qnrf] == [("test", [[4, 1]]), ("train", [[5, 1]])]


def test_stated_numbers_are_compared(tmp_path):
    write_images(tmp_path / "train/images", ["a.jpg"])
    (tmp_path / "train/gt").mkdir()
    (tmp_path / "train/gt/a.txt").write_text("1 2 3 4 0 0\n")
    (tmp_path / "train/image_labels.txt").write_text("b,4,street,0,0\na,7,street,0,0\n")
    manifest = prepare(find_own(tmp_path, tmp_path), tmp_path, tmp_path / "out")
    assert [each["problem"] for each in manifest["problems"]] == [
        "states 7 heads but has 1 points; the points are used"
    ]
    for name, write in {
        "nwpu": lambda folder: write_json(folder / "a.json", {"img_id": "a", "human_num": 3, "points": [[1, 1]]}),
        "mat": lambda folder: write_truth(folder / "a.mat", [[1, 1]], 3),
        "mat73": lambda folder: save_v73(
            folder / "a.mat", {"image_info": [{"location": np.ones((1, 2)), "number": np.array([[3.0]])}]}
        ),
    }.items():
        write(write_images(tmp_path / name, ["a.jpg"]))
        assert [image.heads()[1] for image in find_own(tmp_path / name, tmp_path / name).images] == [3], name


@pytest.mark.parametrize(
    "said", ["images\\a.jpg", "..\\images\\a.jpg", "../images/a.jpg", "C:\\mine\\a.jpg", "gone.jpg"]
)
def test_labelmes_image_is_found_by_its_path_or_beside_it(tmp_path, said):
    images = write_images(tmp_path / "images", ["a.jpg"])
    write_json(tmp_path / "images/a.json", labelme(said, [[1, 2]]))
    assert heads_of(find_own(images, images)) == {"a.jpg": [[1, 2]]}


def test_names_of_tools_without_folders_are_found_where_they_are_unique(tmp_path):
    write_images(tmp_path, ["x/a.jpg", "y/b.png"])
    write_json(tmp_path / "p.json", coco())
    assert heads_of(find_own(tmp_path, tmp_path)) == HEADS
    write_images(tmp_path, ["z/a.jpg"])
    found = find_own(tmp_path, tmp_path)
    assert heads_of(found) == {"b.png": []}
    assert [path.name for path, _ in found.problems] == ["a.jpg", "a.jpg", "a.jpg"]


@pytest.mark.parametrize("kind", ["coco boxes", "labelme point", "cvat points"])
def test_labels_of_other_things_are_skipped_and_said(tmp_path, kind):
    images = write_images(tmp_path / "images")
    WRITERS[kind][1](images)
    for path in images.glob("*.json"):
        content = json.loads(path.read_text())
        if "categories" in content:
            content["categories"].append({"id": 2, "name": "car"})
            content["annotations"] += [{"id": 9, "image_id": 0, "category_id": 2, "bbox": [0, 0, 2, 2]}]
            content["annotations"] += [{"id": 10, "image_id": 0, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 2, 2]}]
        else:
            content["shapes"] += [{"label": "car", "shape_type": "point", "points": [[1, 1]]}] * bool(content["shapes"])
        path.write_text(json.dumps(content))
    for path in images.glob("*.xml"):
        text = path.read_text().replace('height="40">', 'height="40"><box label="car"/><polygon label="head"/>', 1)
        path.write_text(text)
    found = find_own(images, images)
    assert heads_of(found) == HEADS
    ((_, text),) = found.problems
    assert "1 car" in text
    assert text.startswith(("annotations that are not single people", "shapes that are not points"))


def test_coco_counts_one_head_per_annotation(tmp_path):
    write_images(tmp_path)
    content = coco()
    content["categories"][0]["keypoints"] = ["left_ear", "nose", "right_ear"]
    content["annotations"] = [
        {"image_id": 0, "category_id": 1, "keypoints": [1, 1, 2, 5, 6, 2, 9, 9, 2]},  # nose
        {"image_id": 0, "category_id": 1, "keypoints": [1, 3, 2, 0, 0, 0, 3, 5, 1]},  # mean of ears
        {"image_id": 0, "category_id": 1, "keypoints": [0] * 9, "bbox": [10, 10, 4, 6]},  # not labelled
        {"image_id": 77, "category_id": 1, "bbox": [10, 10, 4, 6]},
    ]
    write_json(tmp_path / "p.json", content)
    found = find_own(tmp_path, tmp_path)
    assert heads_of(found)["a.jpg"] == [[5, 6], [2, 4], [12, 13]]
    assert [text for _, text in found.problems] == ["has 1 annotations of images that it does not list; skipped"]


@pytest.mark.parametrize(("said", "meant"), [("a.png", "a.jpg"), ("martket_01.png", "market_01.png")])
def test_a_name_that_is_almost_that_of_an_image_is_suggested(tmp_path, said, meant):
    write_images(tmp_path / "images", ["a.jpg", "market_01.png"])
    (tmp_path / "p.csv").write_text(f"image,x,y\n{said},1,2\n")
    problems = find_own(tmp_path / "images", tmp_path / "p.csv").problems
    (text,) = [text for path, text in problems if path == tmp_path / "images" / said]
    assert text == f"does not exist, but p.csv has points for it; skipped; did you mean {meant!r}?"


def test_an_image_with_an_annotation_of_its_own_is_not_suggested_for_another(tmp_path):
    write_images(tmp_path / "images", ["img_0001.jpg", "img_0002.jpg"])
    (tmp_path / "p.csv").write_text("image,x,y\n./img_0001.jpg,1,2\nimg_0003.jpg,3,4\nold/img_0001.jpg,5,6\n")
    found = find_own(tmp_path / "images", tmp_path / "p.csv")
    assert heads_of(found) == {"img_0001.jpg": [[1, 2]]}
    texts = {path.relative_to(tmp_path).as_posix(): text.partition("skipped")[2] for path, text in found.problems}
    assert texts["images/img_0003.jpg"] == "; did you mean 'img_0002.jpg'?"
    assert texts["images/old/img_0001.jpg"] == ""
    for stem in ("img_0001", "img_0003"):
        savemat(tmp_path / f"images/{stem}_ann.mat", {"annPoints": [[1.0, 2.0]]})
    texts = dict(find_own(tmp_path / "images", tmp_path / "images", "qnrf").problems)
    lost = texts[tmp_path / "images/img_0003_ann.mat"]
    assert lost == f"has no image img_0003.* in {tmp_path}/images; skipped; did you mean 'img_0002.jpg'?"


@pytest.mark.parametrize("kind", ["csv", "json", "coco boxes", "cvat points"])
def test_images_in_a_subfolder_are_found_or_their_folder_is_suggested(tmp_path, kind):
    write_images(tmp_path, ["images/a.jpg", "images/b.png"])
    WRITERS[kind][1](tmp_path)
    assert heads_of(find_own(tmp_path, tmp_path)) == HEADS
    write_images(tmp_path, ["more/a.jpg"])  # which of them is meant?
    found = find_own(tmp_path, tmp_path)
    assert heads_of(found) == {"b.png": []}
    assert f"did you mean 'images/a.jpg', or --root {tmp_path}/images?" in dict(found.problems)[tmp_path / "a.jpg"]


def test_a_folder_without_images_asks_for_another_root(tmp_path):
    write_images(tmp_path / "images")
    write_json(tmp_path / "annotations/p.json", coco())
    with pytest.raises(FileNotFoundError, match=r"no image in .*/annotations; give the folder .* as --root"):
        find_own(tmp_path / "annotations", tmp_path / "annotations/p.json")


def test_a_file_of_no_image_suggests_one(tmp_path):
    write_images(tmp_path, ["img_0001.jpg"])
    savemat(tmp_path / "img_001_ann.mat", {"annPoints": [[1.0, 2.0]]})
    found = find_own(tmp_path, tmp_path)
    assert [text.split(" in ")[0] for path, text in found.problems if path.suffix == ".mat"] == [
        "has no image img_001.*"
    ]
    assert found.problems[0][1].endswith("skipped; did you mean 'img_0001.jpg'?")
    with pytest.raises(ValueError, match=r"has no image img_001\.\* in .*; did you mean 'img_0001\.jpg'\?$"):
        find_own(tmp_path, tmp_path / "img_001_ann.mat")


def test_an_image_that_two_files_annotate_counts_once(tmp_path):
    write_images(tmp_path)
    for name in ("1.json", "2.json"):
        write_json(tmp_path / name, coco())
    found = find_own(tmp_path, tmp_path)
    assert heads_of(found) == HEADS
    assert [text for _, text in found.problems] == [
        "is annotated twice; these 2 points are skipped",
        "is annotated twice; these 0 points are skipped",
    ]


# ---------------------------------------------------------------- untrusted files


@pytest.mark.parametrize(
    "declared",
    [
        '<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
        '<!ENTITY % a SYSTEM "x"> %a;',
        "",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_xml_with_a_document_type_is_refused(tmp_path, declared, encoding):
    write_images(tmp_path)
    body = cvat().replace('name="a.jpg"', 'name="&amp;a"').partition("?>")[2]
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE annotations [{declared}]>{body}'
    (tmp_path / "p.xml").write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=r"p\.xml has a document type .*refused: entities can expand"):
        find_own(tmp_path, tmp_path / "p.xml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
@pytest.mark.parametrize("name", ["b_ann.mat", "b.json", "b.xml", "b.csv", "b.txt"])
def test_a_fifo_is_not_an_annotation_and_blocks_nobody(tmp_path, name):
    write_images(tmp_path)
    os.mkfifo(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no points file at"):
        find_own(tmp_path, tmp_path / name)
    savemat(tmp_path / "a_ann.mat", {"annPoints": [[1.0, 2.0]]})
    assert heads_of(find_own(tmp_path, tmp_path)) == {"a.jpg": [[1, 2]]}


def test_xml_nested_deeply_is_read_without_recursion(tmp_path):
    write_images(tmp_path)
    (tmp_path / "p.xml").write_text(
        cvat().replace("</annotations>", "<a>" * 200_000 + "</a>" * 200_000 + "</annotations>")
    )
    assert heads_of(find_own(tmp_path, tmp_path / "p.xml")) == HEADS


@pytest.mark.parametrize("encoding", ["foo", "hex", "big5", "idna", "punycode", "cp037"])
def test_xml_in_an_encoding_that_cannot_be_read_is_refused_by_name(tmp_path, encoding):
    write_images(tmp_path / "images")
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?><annotations/>')
    with pytest.raises(ValueError, match=rf"^{tmp_path}/p/a\.xml cannot be read as XML.*encoding"):
        find_own(tmp_path / "images", tmp_path / "p/a.xml")
    (tmp_path / "p/b.xml").write_text(cvat())
    found = find_own(tmp_path / "images", tmp_path / "p")
    assert heads_of(found) == HEADS
    ((path, text),) = found.problems
    assert path == tmp_path / "p/a.xml"
    assert text.startswith("cannot be read as XML")


def test_cvat_for_video_is_named(tmp_path):
    write_images(tmp_path)
    (tmp_path / "p.xml").write_text('<annotations><track id="0" label="head"><box frame="0"/></track></annotations>')
    with pytest.raises(ValueError, match=r"CVAT for video; export the task as CVAT for images"):
        find_own(tmp_path, tmp_path / "p.xml", "cvat")


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/out.jpg", "..\\out.jpg"])
@pytest.mark.parametrize("kind", ["coco", "labelme", "cvat"])
def test_an_image_outside_of_the_folder_is_not_read(tmp_path, kind, name):
    write_images(tmp_path / "images", ["b.png"])
    write_images(tmp_path, ["out.jpg"])
    content = {
        "coco": json.dumps(coco()).replace('"a.jpg"', json.dumps(name)),
        "labelme": json.dumps(labelme(name, [[1, 2]])),
        "cvat": cvat().replace("a.jpg", name),
    }[kind]
    file = tmp_path / f"images/p.{'xml' if kind == 'cvat' else 'json'}"
    file.write_text(content)
    if kind == "labelme":
        with pytest.raises(ValueError, match=r"p\.json has no image p\.\* in"):
            find_own(tmp_path / "images", file)
        return
    found = find_own(tmp_path / "images", file)
    assert heads_of(found) == {"b.png": []}
    ((_, text),) = found.problems
    assert text.startswith(("is outside of", "does not exist"))


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("coco keypoints", "[10.0, 20.0, 2]", '["x", 20.0, 2]'),
        ("coco keypoints", "[10.0, 20.0, 2]", "[10.0, 20.0]"),
        ("coco keypoints", '"keypoints"', '"other"'),
        ("coco boxes", "[6.0, 17.0, 8, 6]", "[6.0, 17.0, 8]"),
        ("coco boxes", "6.0", "1e999"),
        ("coco boxes", '"file_name": "a.jpg"', '"file_name": 3'),
        ("coco boxes", '"images": [{', '"images": [3, {'),
        ("labelme point", "[[10.0, 20.0]]", "[[10.0, 20.0], [1, 2]]"),
        ("labelme point", "[[10.0, 20.0]]", "[[10.0, true]]"),
        ("labelme point", "[[10.0, 20.0]]", "3"),
        ("labelme point", '"a.jpg"', '""'),
        ("cvat points", "10.0,20.0", "10.0"),
        ("cvat points", "10.0,20.0", "a,b"),
        ("cvat points", 'name="a.jpg"', 'name=""'),
        ("cvat boxes", 'xtl="6.0"', ""),
        ("cvat boxes", "</annotations>", ""),
        ("jhu", "8 9 1 0", "8 9 1"),
        ("jhu", "10.0 20.0", "10.0 nan"),
        ("nwpu", "[10.0, 20.0]", "[10.0]"),
        ("nwpu", "[[10.0, 20.0], [30.5, 5.0]]", '"all"'),
    ],
)
def test_a_fault_is_refused_by_file_and_place(tmp_path, kind, old, new):
    images, folder = write_images(tmp_path / "images"), tmp_path / "p"
    name, write = WRITERS[kind]
    write(folder)
    file = next(path for path in sorted(folder.rglob("*.*")) if path.is_file() and old in path.read_text())
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=rf"^{file}"):
        find_own(images, file, name)


@pytest.mark.parametrize("content", [{"annPoints": np.ones((3, 3))}, {"a": np.ones((3, 2)), "b": np.ones((4, 2))}])
def test_a_mat_file_without_one_matrix_of_points_is_refused(tmp_path, content):
    write_images(tmp_path)
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=r"a\.mat has no N x 2 matrix of points named annPoints or image_info"):
        find_own(tmp_path, tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in ("csv", "coco") for name in ("x" * 300 + ".jpg", "loop.jpg", "loop/x.jpg")),
        ("coco", "\ud800.jpg"),  # half of a surrogate pair, which UTF-8 does not have
    ],
    ids=lambda value: ascii(value)[1:12],
)
def test_a_name_of_no_possible_file_is_a_missing_image(tmp_path, kind, name):
    images = write_images(tmp_path / "images", ["b.png"])
    for loop in ("loop.jpg", "loop"):
        (images / loop).symlink_to(images / loop)
    if kind == "csv":
        (tmp_path / "p").write_text(f"image,x,y\n{name},1,2\nb.png,,\n")
    else:
        write_json(tmp_path / "p", json.loads(json.dumps(coco()).replace('"a.jpg"', json.dumps(name))))
    found = find_own(images, tmp_path / "p", kind)
    assert heads_of(found) == {"b.png": []}
    assert found.problems == [(images / name, "does not exist, but p has points for it; skipped")]


@pytest.mark.parametrize(
    ("name", "text"),
    [("p.xml", cvat()), ("p.xml", "<a>"), ("p.json", json.dumps(coco())), ("p.json", "{"), ("p.txt", "\xff")],
)
def test_a_file_is_read_once_also_if_it_is_damaged(tmp_path, monkeypatch, name, text):
    images = write_images(tmp_path / "images")
    (tmp_path / name).write_text(text, encoding="latin-1")
    opened, real = [], Path.open
    monkeypatch.setattr(Path, "open", lambda path, *args, **kwargs: opened.append(path) or real(path, *args, **kwargs))
    try:
        find_own(images, tmp_path / name)
    except ValueError:
        assert len(text) < 10
    assert opened.count(tmp_path / name) == 1


# ---------------------------------------------------------------- CSV and JSON


def test_names_that_were_marked_for_spreadsheets_are_read_back(tmp_path):
    names = ["=1.jpg", "-2.jpg", "a.jpg"]
    (tmp_path / "a.csv").write_text(csv_text(["image", "x", "y"], [[name, "-1", 2] for name in names]))
    assert "'=1.jpg,-1,2" in (tmp_path / "a.csv").read_text()
    found = read_points(tmp_path / "a.csv")
    assert {name: points.tolist() for name, (points, _) in found.items()} == {name: [[-1, 2]] for name in names}


def test_points_are_read_from_csv_and_json_alike(tmp_path):
    (tmp_path / "a.csv").write_text(
        "\ufeffImage, X, Y, split\n1.jpg, 3, 4.5,\nb/2.jpg,,,test\n1.jpg,10,20\n1.jpg,0,0,train\n".replace(
            "20\n", "20,\n"
        ),
        encoding="utf-8",
    )
    listed = {"1.jpg": [[3, 4.5], [10, 20], [0, 0]], "b/2.jpg": {"points": [], "split": "test"}}
    (tmp_path / "a.json").write_text(json.dumps(listed))
    for name in ("a.csv", "a.json"):
        found = read_points(tmp_path / name)
        assert {key: (points.tolist(), split) for key, (points, split) in found.items()} == {
            "1.jpg": ([[3, 4.5], [10, 20], [0, 0]], "train" if name == "a.csv" else None),
            "b/2.jpg": ([], "test"),
        }
        assert found["b/2.jpg"][0].shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "expected the columns image,x,y and optionally split, got ''"),
        ("a.csv", "x,y\n1,2\n", "expected the columns image,x,y and optionally split, got 'x,y'"),
        ("a.csv", "image,x,y\n", "lists no images"),
        ("a.csv", "image,x,y\na.jpg,1\n", "line 2: expected 3 values"),
        ("a.csv", "image,x,y\na.jpg,1,2\na.jpg,1,2,3\n", "line 3: expected 3 values"),
        ("a.csv", "image,x,y\na.jpg,1,b\n", "line 2: x and y must be numbers of pixels, got '1' and 'b'"),
        ("a.csv", "image,x,y\na.jpg,1,\n", "line 2: x and y must be numbers of pixels, got '1' and ''"),
        ("a.csv", "image,x,y\na.jpg,1,inf\n", "line 2: x and y must be finite"),
        ("a.csv", "image,x,y\n,1,2\n", "line 2: the image name is missing"),
        ("a.csv", "image,x,y,split\na.jpg,1,2,tset\n", "line 2: unknown split 'tset'; did you mean 'test'"),
        ("a.csv", "image,x,y,split\na.jpg,1,2,test\na.jpg,1,2,train\n", "line 3: a.jpg is in two splits"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[" * 100_000, "cannot be read as JSON"),
        ("a.json", "[]", "expected a mapping of image names to points, got list"),
        ("a.json", "{}", "lists no images"),
        ("a.json", '{"a.jpg": 3}', "'a.jpg': expected"),
        ("a.json", '{"a.jpg": [[1, 2, 3]]}', "'a.jpg': points must be pairs"),
        ("a.json", '{"a.jpg": [[1], [1, 2]]}', "'a.jpg': points must be pairs"),
        ("a.json", '{"a.jpg": [[1, NaN]]}', "'a.jpg': points must be finite"),
        ("a.json", '{"a.jpg": {"points": [], "splt": "test"}}', "'a.jpg': expected"),
        ("a.txt", "", "has no annotation format that is known; formats: csv"),
    ],
)
def test_a_file_of_points_with_a_fault_is_refused_by_name_and_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        read_points(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize("kind", ["no column", "empty cells", "json"])
def test_images_of_a_file_without_splits_have_those_of_their_folders(tmp_path, kind):
    names = [f"{split}/{split}.jpg" for split in ("train", "val", "test")] + ["other.jpg"]
    write_images(tmp_path / "images", names)
    if kind == "json":
        write_json(tmp_path / "p.json", {name: [[1, 2]] for name in names})
    else:
        header, end = ("image,x,y,split", ",") if kind == "empty cells" else ("image,x,y", "")
        (tmp_path / "p.csv").write_text("\n".join([header, *(f"{name},1,2{end}" for name in names)]))
    found = find_own(tmp_path / "images", tmp_path / f"p.{'json' if kind == 'json' else 'csv'}")
    assert {image.image.name: image.split for image in found.images} == {
        "train.jpg": "train",
        "val.jpg": "val",
        "test.jpg": "test",
        "other.jpg": "train",
    }


def test_a_stated_split_goes_before_that_of_the_folder(tmp_path):
    write_images(tmp_path / "images", ["test/a.jpg"])
    (tmp_path / "p.csv").write_text("image,x,y,split\ntest/a.jpg,1,2,\ntest/a.jpg,3,4,val\n")
    assert [image.split for image in find_own(tmp_path / "images", tmp_path / "p.csv").images] == ["val"]


def test_tables_of_other_tools(tmp_path):
    """Columns by name, decimal commas of spreadsheets, and columns that are not needed, which are said."""
    write_images(tmp_path)
    (tmp_path / "p.csv").write_text("id;Y;X;filename;subset\n1;20,5;10;a.jpg;test\n2;3.5;4;a.jpg;test\n")
    found = find_own(tmp_path, tmp_path / "p.csv")
    assert heads_of(found) == {"a.jpg": [[10, 20.5], [4, 3.5]]}
    assert found.images[0].split == "test"
    assert found.problems[0] == (tmp_path / "p.csv", "has columns that are not used: id")


def test_heic_images_name_the_package_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    write_images(tmp_path / "p", ["a.jpg"])
    (tmp_path / "p/photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (tmp_path / "p/other.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (tmp_path / "p.csv").write_text("image,x,y\na.jpg,1,2\nphoto.heic,1,2\n")
    manifest = prepare(find_own(tmp_path / "p", tmp_path / "p.csv"), tmp_path / "p", tmp_path / "out")
    texts = {each["file"]: each["problem"] for each in manifest["problems"]}
    assert texts.keys() == {"photo.heic", "other.HEIC"}
    assert "`pip install pillow-heif` makes it readable" in texts["photo.heic"]
    assert texts["other.HEIC"].startswith("has no entry in p.csv")

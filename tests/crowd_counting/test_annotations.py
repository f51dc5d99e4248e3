import os
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tasks.crowd_counting.annotations import find_own, find_shanghaitech, read_mat

from .drawn import write_part, write_pictures, write_truth


@pytest.mark.parametrize("layout", ["official", "final"])
@pytest.mark.parametrize("above", [0, 1, 2])
def test_parts_are_found_in_either_layout_and_below_other_folders(tmp_path, layout, above):
    root = tmp_path / "/".join(["data"] * above) if above else tmp_path
    write_part(root, "A", (2, 1), layout=layout)
    write_part(root, "B", (3, 1), layout=layout)
    found = find_shanghaitech(tmp_path)
    assert [(image.part, image.split, image.image.name) for image in found.images] == [
        ("A", "train", "IMG_1.jpg"),
        ("A", "train", "IMG_2.jpg"),
        ("A", "test", "IMG_1.jpg"),
        ("B", "train", "IMG_1.jpg"),
        ("B", "train", "IMG_2.jpg"),
        ("B", "train", "IMG_3.jpg"),
        ("B", "test", "IMG_1.jpg"),
    ]
    assert found.problems == []


def test_a_part_alone_may_be_the_folder_and_numbers_are_in_order(tmp_path, monkeypatch):
    part = write_part(tmp_path, images=(11, 0))
    assert [int(image.image.stem[4:]) for image in find_shanghaitech(part).images] == list(range(1, 12))
    monkeypatch.chdir(part)
    assert len(find_shanghaitech(Path()).images) == 11


def test_files_without_their_pair_are_named_and_the_others_found(tmp_path):
    part = write_part(tmp_path, images=(3, 1))
    (part / "train_data/images/IMG_1.jpg").unlink()
    (part / "train_data/ground-truth/GT_IMG_3.mat").unlink()
    found = find_shanghaitech(tmp_path)
    assert [image.image.name for image in found.images] == ["IMG_2.jpg", "IMG_1.jpg"]
    assert [(path.name, text) for path, text in found.problems] == [
        ("GT_IMG_1.mat", "has no image images/IMG_1.jpg; skipped"),
        ("IMG_3.jpg", "has no annotation ground-truth/GT_IMG_3.mat; skipped"),
    ]


def test_a_folder_without_a_part_is_answered_with_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no part of ShanghaiTech in .*: expected part_\{A,B\}.*--points FILE"):
        find_shanghaitech(tmp_path)


def test_one_part_in_two_copies_is_refused(tmp_path):
    write_part(tmp_path / "first", images=(1, 0))
    write_part(tmp_path / "second", images=(1, 0), layout="final")
    with pytest.raises(ValueError, match="holds part B more than once"):
        find_shanghaitech(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
@pytest.mark.parametrize("place", ["images/IMG_2.jpg", "ground-truth/GT_IMG_2.mat"])
def test_a_fifo_is_named_instead_of_read(tmp_path, place):
    path = write_part(tmp_path, images=(2, 0)) / "train_data" / place
    path.unlink()
    os.mkfifo(path)
    found = find_shanghaitech(tmp_path)
    assert [image.image.name for image in found.images] == ["IMG_1.jpg"]
    assert found.problems == [(path, "is not a regular file; skipped")]


# ---------------------------------------------------------------- .mat


@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_truth_has_its_points_and_their_number(tmp_path, number):
    points = np.random.default_rng(0).uniform(0, 50, (number, 2))
    write_truth(tmp_path / "a.mat", points, number + 1)
    found, said = read_mat(tmp_path / "a.mat")
    assert np.array_equal(found, points)
    assert found.shape == (number, 2)
    assert said == number + 1


@pytest.mark.parametrize("content", [b"", b"no mat file", b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_what_is_no_mat_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/a.mat "):
        read_mat(tmp_path / "a.mat")


@pytest.mark.parametrize("content", [{"x": 1}, {"image_info": np.zeros(3)}, {"image_info": np.zeros((2, 2))}])
def test_a_mat_file_of_something_else_is_refused(tmp_path, content):
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=r"a.mat is not a ShanghaiTech annotation: no N x 2 points"):
        read_mat(tmp_path / "a.mat")


def test_a_truncated_mat_file_is_refused(tmp_path):
    write_truth(tmp_path / "a.mat", np.ones((40, 2)))
    content = (tmp_path / "a.mat").read_bytes()
    for length in range(0, len(content), max(1, len(content) // 40)):
        (tmp_path / "a.mat").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.mat"):
            read_mat(tmp_path / "a.mat")


# ---------------------------------------------------------------- custom images


def test_own_pictures_are_paired_with_their_points_and_the_rest_named(tmp_path):
    listed = write_pictures(tmp_path / "pictures")
    text = "".join(f"{name},{x},{y}\n" for name, heads in listed.items() for x, y in heads)
    (tmp_path / "points.csv").write_text("image,x,y\n" + text + "gone.png,1,2\n../outside.png,1,2\n")
    (tmp_path / "outside.png").write_bytes((tmp_path / "pictures/0.png").read_bytes())
    found = find_own(tmp_path / "pictures", tmp_path / "points.csv")
    assert [(image.image.name, len(image.heads()[0])) for image in found.images] == [("0.png", 3), ("2.png", 5)]
    assert {path.name: text.split(";")[0] for path, text in found.problems} == {
        "outside.png": f"is outside of {tmp_path / 'pictures'}",
        "gone.png": "does not exist, but points.csv has points for it",
        "1.png": "has no entry in points.csv",
    }
    with pytest.raises(FileNotFoundError, match="no image folder at"):
        find_own(tmp_path / "nowhere", tmp_path / "points.csv")
    with pytest.raises(FileNotFoundError, match="no points file at"):
        find_own(tmp_path / "pictures", tmp_path / "nowhere.csv")


def test_a_picture_under_two_names_counts_once_and_the_other_is_named(tmp_path):
    write_pictures(tmp_path / "pictures", numbers=[2])
    (tmp_path / "points.csv").write_text("image,x,y,split\n./0.png,1,1,test\n0.png,2,2,\n0.png,3,3,\n")
    found = find_own(tmp_path / "pictures", tmp_path / "points.csv")
    assert [image.heads()[0].tolist() for image in found.images] == [[[1, 1]]]
    assert [text for _, text in found.problems] == ["is './0.png' under another name; these 2 points are skipped"]


def test_a_number_that_is_none_is_no_annotation(tmp_path):
    write_truth(tmp_path / "a.mat", [[1, 1]], number=np.inf)
    with pytest.raises(ValueError, match=r"a.mat is not a ShanghaiTech annotation"):
        read_mat(tmp_path / "a.mat")

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ean_core.data.sampler import SampleKey
from tasks.segmentation.dataset import KeyedDataset, PreparedVOC

PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomResize", "scale": (160, 60), "ratio_range": (0.5, 2.0), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (40, 40), "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackSegInputs"},
]


@pytest.fixture
def dataset(data, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    return PreparedVOC("train", pipeline=PIPELINE)


@pytest.fixture
def folders(data, monkeypatch):
    """The same pictures as a data set of mmsegmentation's own, of the prepared lists and masks."""
    monkeypatch.setenv("EAN_DATA", str(data))
    settings = {
        "type": "mmseg.PascalVOCDataset",
        "data_root": "",
        "data_prefix": {"img_path": "VOCdevkit/VOC2012/JPEGImages", "seg_map_path": "segmentation/voc2012/masks"},
        "ann_file": "segmentation/voc2012/lists/train.txt",
        "pipeline": PIPELINE,
    }
    return KeyedDataset(settings)


def draw(dataset, *key):
    item = dataset[SampleKey(*key)]
    return item["inputs"], item["data_samples"].gt_sem_seg.data


def same(one, other):
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_items_are_pictures_with_their_labels(data, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    dataset = PreparedVOC("val", pipeline=[*PIPELINE[:2], PIPELINE[-1]], test_mode=True)
    assert len(dataset) == 6
    for number, entry in enumerate(dataset.entries):
        item = dataset[number]
        with Image.open(dataset.folder / entry["file"]) as mask:
            assert np.array_equal(item["data_samples"].gt_sem_seg.data[0], np.array(mask))
        assert item["inputs"].shape == (3, entry["height"], entry["width"])
        assert item["data_samples"].img_path.endswith(f"{entry['name']}.jpg")
    assert sum(dataset.class_pixels) == sum(sum(entry["pixels"]) for entry in dataset.entries)


@pytest.mark.parametrize("kind", ["dataset", "folders"])
def test_draws_depend_on_the_key_alone(kind, request):
    dataset = request.getfixturevalue(kind)
    first = draw(dataset, 0, 3, 5)
    np.random.seed(123)
    draw(dataset, 0, 3, 6)
    assert same(draw(dataset, 0, 3, 5), first)
    others = [(1, 3, 5), (0, 4, 5)]
    assert not any(same(draw(dataset, *key), first) for key in others)


def test_a_prepared_folder_is_read_by_mmsegmentations_own_data_set(dataset, folders):
    assert len(folders) == len(dataset)
    assert folders.metainfo["classes"] == dataset.metainfo["classes"]
    assert all(same(draw(folders, 0, 0, n), draw(dataset, 0, 0, n)) for n in range(4))


def test_draws_of_others_go_on_as_if_nothing_had_been_drawn(dataset):
    np.random.seed(7)
    expected = np.random.rand(3)
    np.random.seed(7)
    draw(dataset, 0, 0, 0)
    assert np.array_equal(np.random.rand(3), expected)


def test_lists_that_are_not_there_are_named(data, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    with pytest.raises(ValueError, match=r"unknown list of .*'trainaug'; did you mean 'train'.*; trainaug needs SBD"):
        PreparedVOC("trainaug")


def test_a_folder_that_is_not_prepared_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="ean seg prepare"):
        PreparedVOC("train", root=tmp_path)


def test_items_are_those_of_the_manifest_whatever_a_list_says(data, monkeypatch, tmp_path):
    copied = tmp_path / "voc"
    shutil.copytree(data / "segmentation/voc2012", copied)
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["root"] = str(data / "VOCdevkit")
    (copied / "manifest.json").write_text(json.dumps(manifest))
    (copied / "lists/val.txt").write_text("2007_000000\n")
    dataset = PreparedVOC("val", root=copied)
    assert [Path(dataset.get_data_info(n)["img_path"]).stem for n in range(len(dataset))] == manifest["lists"]["val"]
    manifest["lists"]["val"].append("2007_999999")
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="has lists with images that it does not contain"):
        PreparedVOC("val", root=copied)

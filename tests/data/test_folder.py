import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from ean_core.data import EpochSampler, ImageTree, SampleKey


def write(path, seed, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    low = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    Image.fromarray(low).resize(size).convert(mode).save(path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Three classes of 4 to 6 training images and 2 test images each."""
    root = tmp_path_factory.mktemp("tree")
    for k, name in enumerate(("ant", "bee", "cat")):
        for i in range(4 + k):
            write(root / "train" / name / f"{i}.jpg", seed=10 * k + i)
        for i in range(2):
            write(root / "val" / name / f"{i}.JPEG", seed=100 + 10 * k + i)
    return root


def names(dataset):
    return ["/".join(path.split("/")[-3:]) for path, _ in dataset.samples]


def epoch(dataset, num_workers, number=2):
    sampler = EpochSampler(dataset, seed=3)
    sampler.set_epoch(number)
    loader = DataLoader(dataset, 4, sampler=sampler, num_workers=num_workers, collate_fn=default_collate)
    return list(loader)


def test_validation_is_held_out_of_the_training_folder(tree):
    train, val, trainval, test = (ImageTree(s, tree, val_per_class=3) for s in ("train", "val", "trainval", "test"))
    assert names(val) == [f"train/{name}/{i}.jpg" for name in ("ant", "bee", "cat") for i in range(3)]
    assert names(train) == ["train/ant/3.jpg", *(f"train/bee/{i}.jpg" for i in (3, 4))] + [
        f"train/cat/{i}.jpg" for i in (3, 4, 5)
    ]
    assert sorted(names(train) + names(val)) == sorted(names(trainval))
    assert names(test) == [f"val/{name}/{i}.JPEG" for name in ("ant", "bee", "cat") for i in range(2)]
    assert [label for _, label in test.samples] == [0, 0, 1, 1, 2, 2]
    assert test.metainfo == {"classes": ["ant", "bee", "cat"]}
    assert (len(train), len(val), len(trainval), len(test)) == (6, 9, 15, 6)


def test_an_evaluation_image_is_resized_and_cut_at_the_centre(tree):
    dataset = ImageTree("test", tree, size=28)
    item = dataset[2]
    with Image.open(dataset.samples[2][0]) as image:
        whole = np.asarray(image.resize((32 * 40 // 30, 32), Image.Resampling.BILINEAR))  # 28 / 0.875 = 32
    left = round((whole.shape[1] - 28) / 2)
    expected = torch.from_numpy(whole[2:30, left : left + 28].transpose(2, 0, 1).copy())
    assert item["inputs"].dtype == torch.uint8
    assert torch.equal(item["inputs"], expected)
    assert item["labels"] == 1
    assert torch.equal(dataset[SampleKey(0, 0, 2)]["inputs"], item["inputs"])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_pictures_of_other_modes_have_three_channels(tmp_path, mode):
    write(tmp_path / "val" / "a" / "0.jpg", 0, mode=mode)
    assert ImageTree("test", tmp_path, size=8)[0]["inputs"].shape == (3, 8, 8)


def test_augmentation_depends_on_seed_epoch_and_image_alone(tree):
    dataset = ImageTree("trainval", tree, size=16, augment=True)
    key = SampleKey(0, 0, 5)
    first = dataset[key]["inputs"]
    torch.manual_seed(1)
    for other in [SampleKey(0, 0, 4), SampleKey(1, 0, 5), SampleKey(0, 1, 5)]:
        assert not torch.equal(dataset[other]["inputs"], first)
    assert torch.equal(dataset[key]["inputs"], first)


def test_reading_images_leaves_the_global_generator_alone(tree):
    dataset = ImageTree("trainval", tree, size=16, augment=True)
    before = torch.get_rng_state()
    for item in range(4):
        dataset[SampleKey(0, 0, item)]
    assert torch.equal(torch.get_rng_state(), before)


def test_worker_processes_do_not_change_what_is_read(tree):
    dataset = ImageTree("trainval", tree, size=16, augment=True)
    alone, shared = epoch(dataset, 0), epoch(dataset, 2)
    assert [len(batch["labels"]) for batch in alone] == [4, 4, 4, 3]
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a["inputs"], b["inputs"])
        assert torch.equal(a["labels"], b["labels"])
    assert not torch.equal(epoch(dataset, 0, number=3)[0]["inputs"], alone[0]["inputs"])


def test_the_fingerprint_tells_files_and_what_is_done_to_them(tree, tmp_path):
    base = ImageTree("train", tree, val_per_class=1, size=16)
    assert ImageTree("train", tree, val_per_class=1, size=16).fingerprint == base.fingerprint
    others = [
        ImageTree("train", tree, val_per_class=2, size=16),
        ImageTree("train", tree, val_per_class=1, size=32),
        ImageTree("train", tree, val_per_class=1, size=16, augment=True),
        ImageTree("val", tree, val_per_class=1, size=16),
    ]
    assert len({dataset.fingerprint for dataset in [base, *others]}) == 5


def test_the_fingerprint_does_not_depend_on_where_the_tree_is(tree, tmp_path):
    (tmp_path / "moved").symlink_to(tree)
    assert ImageTree("test", tmp_path / "moved").fingerprint == ImageTree("test", tree).fingerprint


def test_a_relative_root_is_looked_up_in_ean_data(tree, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(tree.parent))
    assert len(ImageTree("test", tree.name)) == 6


@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("val", "train"), ("test", "val")])
def test_a_missing_folder_is_named_with_the_layout_expected(tmp_path, split, folder):
    with pytest.raises(
        FileNotFoundError, match=rf"split '{split}' in .*{folder}.*one folder per class under .*/train and"
    ):
        ImageTree(split, tmp_path)


def test_a_class_without_images_is_named(tmp_path):
    write(tmp_path / "train" / "a" / "0.jpg", 0)
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        ImageTree("trainval", tmp_path)


def test_too_few_images_to_hold_some_out_are_refused(tree):
    with pytest.raises(ValueError, match=r"class 0 has 4 images.*val_per_class=4"):
        ImageTree("train", tree, val_per_class=4)


def test_test_classes_that_are_not_the_training_classes_are_refused(tmp_path):
    for name in ("train/ant", "train/bee", "val/bee"):
        write(tmp_path / name / "0.jpg", 0)
    with pytest.raises(ValueError, match=r"classes.*'ant'"):
        ImageTree("test", tmp_path)


def test_an_unknown_split_is_refused(tree):
    with pytest.raises(ValueError, match="unknown split 'testing'; did you mean 'test'"):
        ImageTree("testing", tree)


def cut(content):
    return content[: len(content) // 2]


def oversized(content):
    """A header that claims 65,535 by 65,535 pixels."""
    frame = content.index(b"\xff\xc0") + 5
    return content[:frame] + b"\xff\xff\xff\xff" + content[frame + 4 :]


@pytest.mark.parametrize("damage", [cut, oversized, lambda content: b"", lambda content: b"<html>not found</html>"])
def test_a_broken_picture_is_named(tmp_path, damage):
    path = tmp_path / "val" / "a" / "broken.jpg"
    write(path, 0)
    path.write_bytes(damage(path.read_bytes()))
    dataset = ImageTree("test", tmp_path, size=8)
    for key in (0, SampleKey(0, 0, 0)):
        with pytest.raises(ValueError, match=r"val/a/broken.jpg cannot be read as an image"):
            dataset[key]


def test_a_broken_picture_is_named_from_a_worker_process(tmp_path):
    write(tmp_path / "val" / "a" / "broken.jpg", 0)
    (tmp_path / "val" / "a" / "broken.jpg").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"val/a/broken.jpg cannot be read as an image"):
        epoch(ImageTree("test", tmp_path, size=8), num_workers=1)

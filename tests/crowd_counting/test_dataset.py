from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from PIL import Image
from torch.utils.data import ConcatDataset

from ean_core.data import SampleKey
from tasks.crowd_counting.annotations import find_own, find_shanghaitech
from tasks.crowd_counting.dataset import CrowdDataset, LastEpochsHook, Window, crowd_batch, draw_window, mirror
from tasks.crowd_counting.density import density_map
from tasks.crowd_counting.prepare import Kernel, prepare

from .drawn import write_part


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("crowd")
    write_part(root, "A", (10, 2), size=(90, 130))
    write_part(root, "B", (10, 2))
    prepare(find_shanghaitech(root), root, root / "prepared", Kernel(sigma=4.0))
    return root / "prepared"


def keys(dataset, epochs=4):
    return [SampleKey(0, epoch, item) for epoch in range(epochs) for item in range(len(dataset))]


def test_splits_and_parts_are_those_of_the_manifest(folder):
    sizes = {split: len(CrowdDataset(split, folder, "B")) for split in ("train", "val", "trainval", "test")}
    assert sizes == {"train": 9, "val": 1, "trainval": 10, "test": 2}
    assert len(CrowdDataset("train", folder)) == 18
    train, val = ({e["name"] for e in CrowdDataset(split, folder).entries} for split in ("train", "val"))
    assert not train & val


def test_a_whole_picture_has_all_its_points(folder):
    dataset = CrowdDataset("test", folder, "B")
    item = dataset[0]
    assert (item["inputs"].dtype, item["inputs"].shape) == (torch.uint8, (3, 96, 128))
    assert (item["points"].shape, item["name"]) == ((3, 2), "B/test/IMG_1")
    assert "density" not in item
    assert torch.equal(dataset[SampleKey(0, 3, 0)]["inputs"], item["inputs"])


def test_grey_pictures_have_three_equal_channels(folder):
    dataset = CrowdDataset("trainval", folder, "B")
    grey = next(n for n, entry in enumerate(dataset.entries) if entry["name"].endswith("IMG_2"))
    pixels = dataset[grey]["inputs"]
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.7, 1.6)])
def test_crops_have_their_size_and_points_inside_and_depend_on_the_key_alone(folder, scale):
    dataset = CrowdDataset("trainval", folder, augment=True, crop=(48, 64), scale=scale, flip=True)
    seen = set()
    for key in keys(dataset, 3):
        item, again = dataset[key], dataset[key]
        assert item["inputs"].shape == (3, 48, 64)
        assert item["density"].shape == (1, 48, 64)
        x, y = item["points"].T
        assert ((x >= 0) & (x < 64) & (y >= 0) & (y < 48)).all()
        assert torch.equal(item["inputs"], again["inputs"])
        assert torch.equal(item["density"], again["density"])
        seen.add(item["inputs"].numpy().tobytes())
    assert len(seen) > 2 * len(dataset)


def test_a_crop_without_enlargement_is_a_part_of_the_picture_with_that_parts_density(folder):
    dataset = CrowdDataset("trainval", folder, "B", augment=True, crop=(48, 64))
    for key in keys(dataset, 2):
        item = dataset[key]
        whole = dataset[key.item]
        window = draw_window((96, 128), (48, 64), (1.0, 1.0), key.generator())
        assert torch.equal(item["inputs"], whole["inputs"][(slice(None), *window.slices)])
        density = density_map(whole["points"].double(), (96, 128), 4)[window.slices]
        assert np.allclose(item["density"][0], density, atol=1e-7)


@pytest.mark.parametrize("scale", [0.75, 1.0, 1.3, 2.0])
def test_enlarging_keeps_the_mass_of_the_density_and_moves_points_with_the_picture(folder, scale):
    dataset = CrowdDataset("trainval", folder, "B", augment=True, crop=(48, 64), scale=(scale, scale))
    for key in keys(dataset, 1):
        item, whole = dataset[key], dataset[key.item]
        window = draw_window((96, 128), (48, 64), (scale, scale), key.generator())
        density = density_map(whole["points"].double(), (96, 128), 4)[window.slices]
        assert item["density"].sum().item() == pytest.approx(density.sum(), rel=1e-5, abs=1e-6)
        back = item["points"].double() / torch.tensor([64 / window.width, 48 / window.height])
        back += torch.tensor([window.left, window.top])
        inside = [p for p in whole["points"].tolist() if _within(p, window)]
        assert np.allclose(back, np.reshape(inside, (-1, 2)), atol=1e-3)


def _within(point, window):
    x, y = point
    return window.left <= x < window.left + window.width and window.top <= y < window.top + window.height


def test_mirroring_mirrors_picture_points_and_density_alike(tmp_path):
    # one white pixel where the only head is
    for n, (x, y) in enumerate([(0, 0), (31, 5), (10, 23), (7, 8)]):
        pixels = np.zeros((24, 32, 3), np.uint8)
        pixels[y, x] = 255
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"p/{n}.png")
    (tmp_path / "p.csv").write_text("image,x,y\n0.png,0,0\n1.png,31.5,5.5\n2.png,10.25,23.99999999\n3.png,7.999,8\n")
    prepare(find_own(tmp_path / "p", tmp_path / "p.csv"), tmp_path / "p", tmp_path / "out", Kernel(sigma=0.0))
    dataset = CrowdDataset("trainval", tmp_path / "out", augment=True, flip=True)
    mirrored = 0
    for key in keys(dataset, 12):
        item = dataset[key]
        (row, column) = np.argwhere(item["inputs"][0].numpy() == 255)[0]
        assert np.floor(item["points"].numpy()).tolist() == [[column, row]]
        assert item["density"][0, row, column] == 1
        mirrored += column != np.argwhere(dataset[key.item]["inputs"][0].numpy() == 255)[0][1]
    assert 12 < mirrored < 36


def test_whole_pictures_train_too_also_with_sides_that_are_no_multiple(folder):
    dataset = CrowdDataset("trainval", folder, "A", augment=True, flip=True)
    for key in keys(dataset, 2):
        item = dataset[key]
        assert item["inputs"].shape == (3, 90, 130)
        assert item["density"].shape == (1, 90, 130)
        assert item["density"].sum().item() == pytest.approx(len(item["points"]), rel=1e-5)


def test_pictures_smaller_than_the_crop_are_enlarged_to_it(folder):
    dataset = CrowdDataset("trainval", folder, "B", augment=True, crop=(192, 160))
    item = dataset[SampleKey(0, 0, 4)]
    assert item["inputs"].shape == (3, 192, 160)
    assert item["density"].shape == (1, 192, 160)


def test_windows_lie_in_the_picture_and_reach_all_of_it():
    rows, columns = set(), set()
    for seed in range(400):
        window = draw_window((20, 30), (16, 16), (1.0, 1.0), torch.Generator().manual_seed(seed))
        assert 0 <= window.top <= 4
        assert 0 <= window.left <= 14
        rows.add(window.top)
        columns.add(window.left)
    assert rows == set(range(5))
    assert columns == set(range(15))


def test_mirroring_twice_is_nothing():
    points = np.random.default_rng(0).uniform(0, 50, (20, 2))
    assert np.allclose(mirror(mirror(points, 50), 50), points, atol=1e-9)


def test_a_point_at_the_right_or_lower_edge_of_a_window_is_in_the_next_one():
    points = np.array([[10.0, 3.0], [9.999, 3.0], [3.0, 8.0]])
    left, right = Window(0, 0, 8, 10), Window(0, 10, 8, 10)
    assert left.move(points, (8, 10)).tolist() == [[9.999, 3.0]]
    assert right.move(points, (8, 10)).tolist() == [[0.0, 3.0]]


def test_items_make_batches_and_pictures_of_several_sizes_do_not(folder):
    dataset = CrowdDataset("trainval", folder, augment=True, crop=(48, 64))
    batch = crowd_batch([dataset[SampleKey(0, 0, n)] for n in range(3)])
    assert (batch["inputs"].shape, batch["density"].shape) == ((3, 3, 48, 64), (3, 1, 48, 64))
    assert [len(batch[key]) for key in ("points", "name")] == [3, 3]
    whole = CrowdDataset("trainval", folder)
    with pytest.raises(ValueError, match=r"cannot batch images of different sizes.*batch_size=1, or crop"):
        crowd_batch([whole[0], whole[-1]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "tset"}, ValueError, "unknown split 'tset'"),
        ({"part": "C"}, ValueError, "unknown part of .*'C'.*'A', 'B'"),
        ({"crop": (64,)}, ValueError, r"crop must be height and width in pixels, got \(64,\)"),
        ({"crop": (0, 64)}, ValueError, r"crop must be height and width in pixels, got \(0, 64\)"),
        ({"crop": (48, 64), "scale": (2, 1)}, ValueError, "scale must be the smallest and largest scale factor"),
        ({"scale": (0.5, 1)}, ValueError, "needs a crop"),
        ({"root": "nowhere"}, FileNotFoundError, "holds no prepared images"),
    ],
)
def test_a_wrong_option_is_said(folder, options, error, message):
    with pytest.raises(error, match=message):
        DATASETS.build({"type": "CrowdDataset", "split": "train", "root": folder, **options})


def test_a_split_without_pictures_and_a_picture_that_has_changed_are_said(tmp_path):
    write_part(tmp_path / "data", images=(4, 0))
    prepare(find_shanghaitech(tmp_path / "data"), tmp_path / "data", tmp_path / "out")
    with pytest.raises(
        ValueError,
        match=r"no image in split 'test' of part B, only in 'train' and 'val'; .*test_dataloader.dataset.split=SPLIT",
    ):
        CrowdDataset("test", tmp_path / "out", "B")
    dataset = CrowdDataset("train", tmp_path / "out")
    Image.new("RGB", (10, 10)).save(tmp_path / "data/part_B/train_data/images/IMG_1.jpg")
    with pytest.raises(ValueError, match=r"IMG_1.jpg is 10 x 10 pixels, 96 x 128 when it was prepared"):
        dataset[0]


def test_scale_factors_halve_as_often_as_they_double():
    draws = [
        draw_window((4000, 4000), (100, 100), (0.5, 2.0), torch.Generator().manual_seed(seed)).height / 100
        for seed in range(400)
    ]
    assert min(draws) < 0.55
    assert max(draws) > 1.85
    assert 0.4 < np.mean(np.array(draws) < 1) < 0.6  # a uniform factor would be below 1 in a third of the draws


def test_recoloring_changes_the_pixels_alone_and_depends_on_the_key_alone(folder):
    options = {"augment": True, "crop": (48, 64), "scale": (0.7, 1.6), "flip": True}
    plain = CrowdDataset("trainval", folder, "B", **options)
    recolored = CrowdDataset("trainval", folder, "B", **options, jitter=0.4, gray=0.3, blur=0.3)
    changed = grays = 0
    for key in keys(plain, 3):
        before = torch.random.get_rng_state()
        item, again, original = recolored[key], recolored[key], plain[key]
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.equal(item["inputs"], again["inputs"])
        assert torch.equal(item["points"], original["points"])
        assert torch.equal(item["density"], original["density"])
        changed += not torch.equal(item["inputs"], original["inputs"])
        grays += bool((item["inputs"][0] == item["inputs"][2]).all())
    assert changed > 25
    assert 3 < grays < 25
    assert torch.equal(recolored[0]["inputs"], plain[0]["inputs"])  # whole images are evaluated as they are


def test_blank_images_have_no_people_and_depend_on_the_key_alone(folder):
    dataset = CrowdDataset("trainval", folder, "B", augment=True, crop=(48, 64), blank=0.5)
    blank = 0
    for key in keys(dataset, 3):
        item, again = dataset[key], dataset[key]
        assert torch.equal(item["inputs"], again["inputs"])
        assert (item["inputs"].shape, item["inputs"].dtype) == ((3, 48, 64), torch.uint8)
        assert item["density"].shape == (1, 48, 64)
        if not item["density"].any():
            assert item["points"].shape == (0, 2)
            blank += 1
    assert 8 < blank < 25  # of 30; a few crops show nobody anyway


@pytest.mark.parametrize("name", ["jitter", "gray", "blur", "blank"])
def test_probabilities_are_between_0_and_1(folder, name):
    with pytest.raises(ValueError, match=f"{name} must be between 0 and 1, got 12"):
        CrowdDataset("train", folder, augment=True, **{name: 12})


def test_the_last_epochs_have_crops_of_their_own(folder):
    options = {"augment": True, "crop": (32, 40), "scale": (0.5, 2.0), "flip": True}
    dataset = CrowdDataset("trainval", folder, "B", **options, last={"size": 1.5, "scale": (1.0, 1.0)})
    plain = CrowdDataset("trainval", folder, "B", **options)
    loader = SimpleNamespace(dataset=dataset)
    LastEpochsHook(2).before_train(SimpleNamespace(max_epochs=6, train_dataloader=loader))
    for key in keys(dataset, 6):
        item = dataset[key]
        if key.epoch < 4:
            assert torch.equal(item["inputs"], plain[key]["inputs"])
            continue
        window = draw_window((96, 128), (48, 60), (1.0, 1.0), key.generator())
        assert (window.height, window.width) == (48, 60)
        whole = dataset[key.item]["inputs"][(slice(None), *window.slices)]
        assert torch.equal(item["inputs"], whole) or torch.equal(item["inputs"], whole.flip(2))
    for epochs, first in ((1, 1), (3, 2), (5, 4), (60, 58)):  # at most a third
        LastEpochsHook(2).before_train(SimpleNamespace(max_epochs=epochs, train_dataloader=loader))
        assert dataset.last_from == first
    other = SimpleNamespace(max_epochs=6, train_dataloader=SimpleNamespace(dataset=ConcatDataset([dataset, dataset])))
    LastEpochsHook(0).before_train(other)
    with pytest.raises(ValueError, match=r"needs a CrowdDataset, got a ConcatDataset; .*default_hooks.last.epochs=0"):
        LastEpochsHook(2).before_train(other)


def test_last_crops_of_whole_images_are_whole_and_their_settings_are_checked(folder):
    dataset = CrowdDataset("train", folder, "B", augment=True, last={"size": 1.5, "scale": (0.75, 1.25)})
    dataset.last_from = 0
    assert dataset[SampleKey(0, 0, 0)]["inputs"].shape == (3, 96, 128)
    with pytest.raises(ValueError, match=r"last must have size, a factor of crop, and scale, got \{'size': 2\}"):
        CrowdDataset("train", folder, "B", augment=True, crop=(32, 40), last={"size": 2})

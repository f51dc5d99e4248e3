"""The faults that public code for crowd counting is known for, one test each."""

import json

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image
from scipy.ndimage import zoom
from torch import nn

from ean_core.common.config import load_config, packaged_configs
from ean_core.data import SampleKey
from tasks.crowd_counting.annotations import find_own
from tasks.crowd_counting.dataset import CrowdDataset, mirror
from tasks.crowd_counting.density import adaptive_sigmas, density_map, resample, spread
from tasks.crowd_counting.metrics import CountMetric
from tasks.crowd_counting.network import CrowdCounter
from tasks.crowd_counting.prepare import prepare

from .drawn import block_sum

COUNTERS = [name for name, path in packaged_configs().items() if path.parent.name == "crowd_counting"]


def small_counter():
    torch.manual_seed(0)
    return CrowdCounter({"type": "EANResNetCIFAR", "depth": 20, "scheme": "none", "stem_stride": 2})


def one_picture(folder, pixels, heads):
    """A prepared folder with one picture of one's own."""
    (folder / "p").mkdir()
    Image.fromarray(pixels).save(folder / "p/a.png")
    (folder / "p.json").write_text(json.dumps({"a.png": heads}))
    prepare(find_own(folder / "p", folder / "p.json"), folder / "p", folder / "out")
    return folder / "out"


@pytest.mark.parametrize("point", [(-0.5, 20), (40.0, 20), (20, -0.5), (20, 30.0), (-7, -7), (99, 99)])
def test_a_point_outside_is_treated_alike_on_every_side_and_never_wraps_around(point):
    for rule, people in (("clamp", 1), ("drop", 0)):
        density = density_map([point], (30, 40), 1, outside=rule)
        assert density.sum() == pytest.approx(people)
    x, y = np.clip(point[0], 0, 39), np.clip(point[1], 0, 29)
    density = density_map([point], (30, 40), 1)
    assert np.unravel_index(density.argmax(), density.shape) == (int(y), int(x))


def test_two_heads_on_one_pixel_are_two():
    density = density_map([[10.2, 10.2], [10.8, 10.9], [10.2, 10.2]], (30, 40), 2)
    assert density.sum() == pytest.approx(3)
    assert density[10, 10] == pytest.approx(3 * density_map([[10.5, 10.5]], (30, 40), 2)[10, 10])


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_few_heads_have_finite_adaptive_kernels(number):
    points = [[10.0, 10.0], [20.0, 10.0], [10.0, 20.0], [30.0, 20.0]][:number]
    sigmas = adaptive_sigmas(points, (60, 100))
    assert np.isfinite(sigmas).all()
    if number == 1:
        assert sigmas.tolist() == [(60 + 100) / 2 / 4]
    else:
        others = [np.sort([np.hypot(a - c, b - d) for c, d in points])[1:] for a, b in points]
        assert sigmas == pytest.approx([0.3 * distances.mean() for distances in others])
    assert density_map(points, (60, 100), "adaptive").sum() == pytest.approx(number)


def test_heads_on_one_point_have_an_adaptive_kernel_too():
    density = density_map([[5.0, 5.0]] * 6, (20, 20), "adaptive")
    assert (density[5, 5], density.sum()) == (6, 6)


def test_a_picture_without_heads_is_a_picture(tmp_path):
    assert density_map([], (20, 30), "adaptive").sum() == 0
    out = one_picture(tmp_path, np.zeros((32, 48, 3), np.uint8), [])
    item = CrowdDataset("trainval", out, augment=True, crop=(16, 16), flip=True)[SampleKey(0, 0, 0)]
    assert (item["points"].shape, item["density"].sum().item()) == ((0, 2), 0)
    for loss in ("DensityL2", "BayesianLoss", "DMCountLoss"):
        parts = MODELS.build({"type": loss})(torch.rand(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), [item["points"]], 8)
        assert all(torch.isfinite(part) for part in parts.values())


def test_x_is_along_a_row_and_y_down_a_column(tmp_path):
    density = density_map([[35.0, 5.0]], (20, 40), 0)
    assert np.argwhere(density).tolist() == [[5, 35]]
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[5, 35] = 255
    item = CrowdDataset("trainval", one_picture(tmp_path, pixels, [[35.5, 5.5]]))[0]
    (x, y) = item["points"][0].long().tolist()
    assert item["inputs"][:, y, x].tolist() == [255, 255, 255]


@pytest.mark.parametrize("column", [0, 1, 19, 38, 39])
def test_mirroring_is_not_off_by_one(column):
    for x in (column, column + 0.5, column + 0.999):
        (found,) = mirror(np.array([[x, 3.0]]), 40)[:, 0]
        if x != column or column == 0:
            assert int(found) == 39 - column
        else:
            assert found == 40 - column  # the edge between two pixels stays one
    density = density_map([[column + 0.5, 3.0]], (10, 40), 3)
    mirrored = density_map(mirror(np.array([[column + 0.5, 3.0]]), 40), (10, 40), 3)
    assert np.allclose(mirrored, density[:, ::-1], atol=1e-15)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (39, 41), (17, 8), (5, 3)])
def test_sides_need_not_be_multiples_of_8_or_16(size):
    heads = np.random.default_rng(0).uniform((0, 0), size[::-1], (9, 2))
    assert block_sum(density_map(heads, size, 3), 8).sum() == pytest.approx(9)
    with torch.no_grad():
        cells = small_counter().eval()(torch.randn(1, 3, *size))[0, 0].numpy()
    assert cells.shape == block_sum(np.zeros(size), 8).shape
    pixels = spread(cells, 8, size)
    assert pixels.shape == size
    assert pixels.sum(dtype=float) == pytest.approx(cells.sum(dtype=float), rel=1e-5)


def test_another_size_does_not_change_the_count():
    density = density_map(np.random.default_rng(0).uniform(0, 100, (1500, 2)), (100, 100), 1.5)
    cubic = zoom(density, 1 / 8, order=3) * 64
    assert abs(cubic.sum() - 1500) > 1  # what public code does
    assert resample(density, (12, 12)).sum() == pytest.approx(1500, rel=1e-12)
    assert block_sum(density, 8).sum() == pytest.approx(1500, rel=1e-12)


def test_the_truth_is_the_number_of_points_whatever_the_density_says(tmp_path):
    out = one_picture(tmp_path, np.zeros((32, 48, 3), np.uint8), [[1, 1], [47, 31], [20, 20]])
    item = CrowdDataset("trainval", out)[0]
    assert "density" not in item
    with torch.no_grad():
        inputs = item["inputs"][None].float()
        (found,) = small_counter().eval()(inputs, [item["points"]], name=[item["name"]], mode="predict")
    assert found["points"] == 3
    metric = CountMetric()
    metric.process(None, [{**found, "count": 5.0}])
    assert metric.evaluate(1)["count/MAE"] == 2


def test_batch_norms_are_not_trained_on_single_pictures():
    model = small_counter().train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.randn(1, 3, 32, 32), [torch.zeros(0, 2)], torch.zeros(1, 1, 32, 32), mode="loss")
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    for name in COUNTERS:
        config = load_config(name)
        assert config.train_dataloader.batch_size > 1 or config.model.backbone.norm_eval, name
    frozen = MODELS.build({"type": "EANResNet", "depth": 18, "scheme": "none", "norm_eval": True}).train()
    assert not any(m.training for m in frozen.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("name", COUNTERS)
def test_no_checkpoint_is_selected_on_test_images(name):
    config = load_config(name)
    assert config.train_dataloader.dataset.split == "train"
    assert config.val_dataloader.dataset.split == "val"
    assert "save_best" not in config.default_hooks.checkpoint
    assert config.test_dataloader.dataset.split == "test"


def test_grey_pictures_are_read_as_colour(tmp_path):
    (tmp_path / "p").mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(tmp_path / "p/a.jpg")
    (tmp_path / "p.csv").write_text("image,x,y\na.jpg,1,1\n")
    prepare(find_own(tmp_path / "p", tmp_path / "p.csv"), tmp_path / "p", tmp_path / "out")
    pixels = CrowdDataset("trainval", tmp_path / "out")[0]["inputs"]
    assert pixels.shape == (3, 8, 8)
    assert torch.equal(pixels[0], pixels[2])

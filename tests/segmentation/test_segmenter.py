import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from PIL import Image

from ean_core.inference import engine
from ean_core.inference.engine import ONNXRUNTIME, PYTORCH
from ean_core.networks import build_network
from tasks.segmentation import register  # noqa: F401
from tasks.segmentation.segmenter import MOST_PIXELS, Segmentation, Segmenter
from tasks.segmentation.voc import CLASSES

from .conftest import SETTINGS
from .drawn import draw


def test_labels_are_those_of_mmsegmentations_test_loop(network, segmenter, data, monkeypatch):
    monkeypatch.setenv("EAN_DATA", str(data))
    steps = [{"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]
    dataset = DATASETS.build({"type": "PreparedVOC", "split": "val", "pipeline": steps, "test_mode": True})
    for number in range(3):
        item = dataset[number]
        with torch.no_grad():
            (expected,) = network.test_step({"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]})
        found = segmenter(dataset.images / dataset.entries[number]["image"])
        different = found.labels != expected.pred_sem_seg.data[0].numpy()
        assert different.mean() < 0.01  # JPEGs are decoded by two libraries, weights are folded
        assert found.labels.shape == (60, 80)


@pytest.mark.parametrize("kind", ["file", "image", "array", "grey"])
def test_pictures_of_any_kind(segmenter, tmp_path, kind):
    picture, _ = draw(0, (30, 50))
    picture.save(tmp_path / "a.png")
    given = {
        "file": tmp_path / "a.png",
        "image": picture,
        "array": np.asarray(picture),
        "grey": np.asarray(picture.convert("L")),
    }[kind]
    found = segmenter(given)
    assert (found.labels.shape, found.labels.dtype) == ((30, 50), np.uint8)
    assert found.classes == CLASSES
    if kind != "grey":
        assert np.array_equal(found.labels, segmenter(picture).labels)


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (2500, 2000)])
def test_pictures_of_any_size(segmenter, shape):
    assert segmenter(np.zeros((*shape, 3), np.uint8)).labels.shape == shape


def test_large_pictures_are_looked_at_in_a_smaller_size(segmenter):
    seen = []
    hook = segmenter.network.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    original = segmenter.network.test_cfg.pop("shorter_side")
    try:
        segmenter(np.zeros((2500, 2000, 3), np.uint8))
    finally:
        hook.remove()
        segmenter.network.test_cfg["shorter_side"] = original
    height, width = seen[0][2:]
    assert 0.99 * MOST_PIXELS <= height * width <= 1.01 * MOST_PIXELS


def test_shares_are_of_the_picture_largest_first():
    labels = np.array([[0, 0, 0], [2, 2, 1]], np.uint8)
    shares = Segmentation(labels, ("a", "b", "c", "d")).shares
    assert list(shares) == ["a", "c", "b"]
    assert shares == pytest.approx({"a": 1 / 2, "c": 1 / 3, "b": 1 / 6})


def test_names_and_colours_are_as_many_as_labels(network):
    assert Segmenter(network, device="cpu").classes == CLASSES
    with pytest.raises(ValueError, match="segmentor has 21 labels, got 2 names"):
        Segmenter(network, device="cpu").set_classes(("a", "b"))


def test_a_network_of_another_task_is_refused(segmentor_file):
    with pytest.raises(ValueError, match="is for image classification; published segmentors:"):
        Segmenter.load("ean_resnet20_se.cifar100")


@pytest.mark.parametrize(("turned", "order"), [(True, (200, 100, 0)), (False, (0, 100, 200))])
def test_colours_come_in_the_order_that_the_network_was_trained_with(turned, order):
    preprocessor = {"type": "SegDataPreProcessor", "mean": [1.0, 2.0, 3.0], "std": [1.0] * 3, "bgr_to_rgb": turned}
    segmenter = Segmenter(build_network({**SETTINGS, "data_preprocessor": preprocessor}), device="cpu")
    orange = np.zeros((8, 8, 3), np.uint8) + np.array([200, 100, 0], np.uint8)
    seen = []
    segmenter.network.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    segmenter(orange)
    expected = [value - mean for value, mean in zip(order, (1, 2, 3), strict=True)]
    assert seen[0].mean((0, 2, 3)).tolist() == pytest.approx(expected, abs=1e-3)


def test_settings_may_leave_out_what_has_a_default():
    settings = {key: value for key, value in SETTINGS.items() if key != "data_preprocessor"}
    settings["test_cfg"] = {"shorter_side": 32}
    assert Segmenter(build_network(settings), device="cpu")(np.zeros((8, 9, 3), np.uint8)).labels.shape == (8, 9)


def test_damaged_and_missing_pictures_are_errors(segmenter, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a.jpg cannot be read as an image"):
        segmenter(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError):
        segmenter(tmp_path / "b.jpg")
    with pytest.raises(ValueError, match="at least one pixel"):
        segmenter(np.zeros((0, 4, 3), np.uint8))


def test_an_image_of_pillows_is_turned_upright(segmenter, tmp_path):
    picture, _ = draw(0, (30, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert segmenter(tmp_path / "a.jpg").labels.shape == (50, 30)


def test_onnx_runtime_labels_the_same(network, tmp_path, monkeypatch):
    monkeypatch.setenv("EAN_HOME", str(tmp_path))
    monkeypatch.setattr(engine, "LOADING_S", 1e-9)
    monkeypatch.setattr(engine, "EXPORTING_S", 1e-9)
    made = Segmenter(network, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected, found = made(pixels).labels, made(pixels).labels
    assert made.engine.passes == {PYTORCH: 1, ONNXRUNTIME: 1}
    assert (found == expected).mean() > 0.999

"""Training, transforms, counting, segmentation and explanation read the same pixels from a file, whatever its kind."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from ean_core.data import ImageTree
from ean_core.data.images import read_image
from tasks import explain
from tasks.crowd_counting.counter import Counter
from tasks.crowd_counting.familiar import Familiar
from zoo.preprocessing import Preprocessing

NOISE = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
WIDE = (np.arange(24 * 36, dtype=np.uint16).reshape(24, 36) * 55) | 0x4000  # 16 bits, never near black


def with_alpha(mode):
    image = Image.fromarray(NOISE).convert(mode)
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 36).astype(np.uint8), (24, 1))))
    return image


def orientation(number):
    tags = Image.Exif()
    tags[0x0112] = number
    return tags


#: A file of each kind by name: suffix, image, options of saving, and the pixels expected where they are simple to tell.
KINDS = {
    "gray of 16 bits": (".png", lambda: Image.fromarray(WIDE), {}, lambda: WIDE >> 8),
    "big-endian": (
        ".tif",
        lambda: Image.frombytes("I;16B", (36, 24), WIDE.astype(">u2").tobytes()),
        {},
        lambda: WIDE >> 8,
    ),
    "gray of 32 bits": (".tif", lambda: Image.fromarray(WIDE.astype(np.int32)), {}, lambda: WIDE >> 8),
    "fractions": (".tif", lambda: Image.fromarray((WIDE / 65535).astype(np.float32)), {}, None),
    "bits": (".png", lambda: Image.fromarray(NOISE).convert("1"), {}, None),
    "gray": (".png", lambda: Image.fromarray(NOISE[:, :, 0]), {}, lambda: NOISE[:, :, 0]),
    "colors": (".png", lambda: Image.fromarray(NOISE), {}, lambda: NOISE),
    "jpeg": (".jpg", lambda: Image.fromarray(NOISE), {}, None),
    "inks": (".jpg", lambda: Image.fromarray(NOISE).convert("CMYK"), {}, None),
    "palette": (".png", lambda: Image.fromarray(NOISE).quantize(16), {"transparency": 3}, None),
    "transparent gray": (".png", lambda: with_alpha("LA"), {}, None),
    "transparent colors": (".png", lambda: with_alpha("RGBA"), {}, None),
    "turned": (".png", lambda: Image.fromarray(NOISE), {"exif": orientation(6)}, lambda: np.rot90(NOISE, -1)),
}


@pytest.fixture(params=KINDS)
def made(request, tmp_path):
    """A file in the folders of an image tree, and its pixels."""
    suffix, image, options, expected = KINDS[request.param]
    path = tmp_path / "tree/val/a" / f"one{suffix}"
    path.parent.mkdir(parents=True)
    image().save(path, **options)
    pixels = read_image(path)
    assert pixels.std() > 10
    if expected:
        known = expected()
        assert np.array_equal(pixels, known if known.ndim == 3 else known[:, :, None].repeat(3, 2))
    return path, pixels


def test_training_and_transforms(made, tmp_path):
    path, pixels = made
    tree = ImageTree("test", tmp_path / "tree", size=8)
    tree.transform = v2.PILToTensor()
    assert np.array_equal(tree[0]["inputs"].permute(1, 2, 0), pixels)
    plain = Preprocessing((0.0,) * 3, (1.0,) * 3)
    for form in (str, Path, Image.open, read_image):
        assert np.array_equal(plain(form(path)).permute(1, 2, 0), pixels)
    assert np.array_equal(Preprocessing((0.0,), (1.0,))(path)[0], Image.fromarray(pixels).convert("L"))


@pytest.mark.parametrize("form", [str, Path, Image.open])
def test_counting(made, form):
    path, pixels = made
    images = []

    class Network(torch.nn.Linear):
        stride, familiar = 8, Familiar(1)

        def count_map(self, image, prepare, seen=None):
            images.append(image[0].permute(1, 2, 0).numpy())
            return torch.zeros(1, 1, -(-image.shape[2] // 8), -(-image.shape[3] // 8))

    counter = Counter.__new__(Counter)
    counter.network = Network(1, 1)
    assert counter(form(path)).count == 0
    assert np.array_equal(images[0], pixels)


@pytest.mark.parametrize("form", [str, Path, Image.open])
def test_segmentation(made, form):
    pytest.importorskip("mmcv")
    pytest.importorskip("mmseg")
    from tasks.segmentation.segmenter import Segmenter

    path, pixels = made
    seen = []

    class Seeing(Segmenter):
        classes = ("one",)

        def __init__(self):
            pass

        def _labels(self, pixels):
            seen.append(pixels)
            return np.zeros(pixels.shape[:2], np.uint8)

    Seeing()(form(path))
    assert np.array_equal(seen[0], pixels)


def test_training_a_segmentor(made, tmp_path):
    pytest.importorskip("mmcv")
    pytest.importorskip("mmseg")
    from tasks.segmentation.dataset import KeyedDataset

    path, pixels = made
    labels = tmp_path / "labels/one.png"
    labels.parent.mkdir()
    Image.fromarray(np.zeros(pixels.shape[:2], np.uint8)).save(labels)
    data = KeyedDataset(
        {
            "type": "BaseSegDataset",
            "img_suffix": path.suffix,
            "data_prefix": {"img_path": str(path.parent), "seg_map_path": str(labels.parent)},
            "metainfo": {"classes": ("one",)},
            "pipeline": [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
        }
    )
    assert np.array_equal(data[0]["inputs"].permute(1, 2, 0).numpy()[:, :, ::-1], pixels)  # BGR


def test_explanation(made, tmp_path, monkeypatch, ean):
    path, pixels = made
    seen = []
    explainer = SimpleNamespace(name="one", classes=[], unit="people")
    monkeypatch.setattr(explain, "load_explainer", lambda _: explainer)
    monkeypatch.setattr(explain, "explain_picture", lambda _, pixels, *__: seen.append(pixels) or [])
    ean("explain", path, "--out", tmp_path / "out")
    assert np.array_equal(seen[0], pixels)

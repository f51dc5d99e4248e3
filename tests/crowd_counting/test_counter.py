import copy
import json
import warnings

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from ean_core.classifier import ImageClassifier
from ean_core.inference import engine
from ean_core.inference.engine import ONNXRUNTIME, PYTORCH
from ean_core.weights.files import save_weights
from tasks.crowd_counting.counter import Counter
from tasks.crowd_counting.drawing import draw_crowd
from tasks.crowd_counting.export import OneSizeCounterMaps
from tasks.crowd_counting.network import MARGIN, TILE

from .conftest import SETTINGS

SIZES = [(1, 1), (1, 40), (8, 8), (7, 9), (60, 101), (96, 64)]


def settings(**changes):
    """Those of the counter, with other values by their dotted names."""
    changed = copy.deepcopy(SETTINGS)
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = changed
        for part in parts:
            place = place[part]
        place[last] = value
    return changed


def crowd(height=64, width=96, people=12):
    return np.asarray(draw_crowd(people, (height, width))[0])


def written(network, path, described):
    save_weights(network.state_dict(), path, {} if described is None else {"network": json.dumps(described)})
    return path


def trained(network, path, text):
    """A checkpoint as mmengine writes it, with such a config."""
    torch.save({"state_dict": network.state_dict(), "meta": {"epoch": 3, "cfg": text}}, path)
    return path


# ---------------------------------------------------------------- counting


def test_a_file_an_image_and_an_array_give_the_same_answer(counter, tmp_path):
    pixels = crowd()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = counter(pixels)
    backwards = np.ascontiguousarray(pixels[::-1, ::-1])[::-1, ::-1]
    for picture in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), backwards):
        count, density = counter(picture)
        assert count == expected.count
        assert np.array_equal(density, expected.density)


def test_grey_is_rgb_of_three_equal_channels(counter):
    grey = np.asarray(Image.fromarray(crowd()).convert("L"))
    expected = counter(grey[:, :, None].repeat(3, 2)).count
    assert counter(grey).count == expected
    assert counter(Image.fromarray(grey)).count == expected
    assert expected != counter(crowd()).count


def test_the_order_of_the_channels_counts(counter):
    assert counter(crowd()).count != counter(crowd()[:, :, ::-1]).count


def test_an_image_is_turned_as_its_orientation_says(counter, tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(crowd()).save(tmp_path / "a.png", exif=tags)
    expected = counter(np.rot90(crowd(), -1))
    assert counter(tmp_path / "a.png").count == expected.count
    with Image.open(tmp_path / "a.png") as image:
        assert counter(image).density.shape == (96, 64)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_density_is_the_pictures_and_sums_to_the_count(counter, height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    count, density = counter(pixels)
    assert density.shape == (height, width)
    assert density.dtype == np.float32
    assert density.min() >= 0
    assert density.sum(dtype=float) == pytest.approx(count, rel=1e-5)
    assert count > 0


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_deployed_counter_says_what_the_eager_network_says(counter, network, height, width):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.inference_mode():
        cells = network(network.data_preprocessor({"inputs": image})["inputs"])[0, 0]
    count, density = counter(pixels)
    assert count == pytest.approx(cells.sum().item(), rel=1e-5)
    whole = density[: height // 8 * 8, : width // 8 * 8]
    summed = whole.reshape(height // 8, 8, width // 8, 8).sum((1, 3))
    assert np.allclose(summed, cells[: height // 8, : width // 8], rtol=1e-4)


def test_the_given_picture_and_network_stay_as_they_are(network):
    pixels = crowd().copy()
    pixels.setflags(write=False)
    before = copy.deepcopy(network.state_dict())
    counter = Counter(network.train())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first, second = counter(pixels).count, counter(pixels).count
        assert network.training
    finally:
        network.eval()
    assert first == second
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (
            np.zeros((4, 4, 4), np.uint8),
            r"expected uint8, RGB \(H, W, 3\) or gray \(H, W\), got uint8 \(4, 4, 4\)",
        ),
        (np.zeros((3, 4, 4), np.uint8), r"got uint8 \(3, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), r"got float32 \(4, 4, 3\)"),
        (np.zeros(9, np.uint8), r"got uint8 \(9,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"at least one pixel, got 4 x 0"),
        (np.zeros((4, 0), np.uint8), r"at least one pixel, got 0 x 4"),
        (Image.new("RGB", (0, 4)), r"at least one pixel, got 0 x 4"),
    ],
)
def test_other_arrays_are_refused(counter, picture, message):
    with pytest.raises(ValueError, match=message):
        counter(picture)


def test_files_that_are_no_pictures_are_refused_by_name(counter, tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read as an image"):
        counter(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"b\.jpg does not exist"):
        counter(str(tmp_path / "b.jpg"))


def test_too_little_memory_is_said_as_such_and_other_errors_stay(network, monkeypatch):
    counter = Counter(network, device="cpu")

    def fail(text):
        def count_map(image, prepare, seen):
            raise RuntimeError(text)

        monkeypatch.setattr(counter.network, "count_map", count_map)

    for text in ("DefaultCPUAllocator: can't allocate memory: you tried to", "CUDA out of memory. Tried to allocate"):
        fail(text)
        with pytest.raises(MemoryError, match="not enough memory to count in 96 x 64 pixels"):
            counter(crowd())
    fail("sizes do not match")
    with pytest.raises(RuntimeError, match="sizes do not match"):
        counter(crowd())


# ---------------------------------------------------------------- tiles


@pytest.fixture(scope="module")
def plain():
    """Without attention, of which what tiles say is exact."""
    torch.manual_seed(1)
    network = MODELS.build(settings(backbone__scheme="none")).eval()
    torch.nn.init.normal_(network.density[2].weight, std=1)  # so that pictures matter
    return network


@pytest.mark.parametrize("shape", [(200, 331), (64, 500), (513, 40)])
@pytest.mark.parametrize("tile", [64, 128])
def test_tiles_say_what_the_whole_says(plain, shape, tile):
    image = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, tiled = plain.count_map(image), plain.count_map(image, tile=tile, margin=128)
    assert tiled.shape == whole.shape
    assert whole.std() > 0.001
    assert torch.allclose(tiled, whole, atol=1e-4, rtol=1e-4)


def test_without_margins_tiles_would_say_something_else(plain):
    image = torch.randn(1, 3, 200, 331, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, tiled = plain.count_map(image), plain.count_map(image, tile=64, margin=0)
    assert (tiled - whole).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 63), (130, 257), (8, 700)])
def test_tiles_count_each_cell_once(plain, shape):
    ones = copy.deepcopy(plain)
    torch.nn.init.zeros_(ones.density[2].weight)
    torch.nn.init.constant_(ones.density[2].bias, 100)  # one person a cell
    with torch.inference_mode():
        cells = ones.count_map(torch.zeros(1, 3, *shape), tile=64, margin=16)
    assert torch.equal(cells, torch.ones(1, 1, -(-shape[0] // 8), -(-shape[1] // 8)))


def test_large_pictures_are_cut_into_tiles_and_count_the_same(plain, monkeypatch):
    counter = Counter(plain, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (TILE + 45, 35, 3), dtype=np.uint8)
    heights = []
    computed = counter.network._map
    monkeypatch.setattr(
        counter.network, "_map", lambda image, seen: (heights.append(image.shape[2]), computed(image, seen))[1]
    )
    count, density = counter(pixels)
    assert heights == [TILE + 45, 45 + MARGIN]
    with torch.inference_mode():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        expected = plain(plain.data_preprocessor({"inputs": image})["inputs"]).double().sum().item()
    assert count == pytest.approx(expected, rel=1e-4)
    assert density.shape == (TILE + 45, 35)
    assert density.sum(dtype=float) == pytest.approx(count, rel=1e-5)


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_of_training_and_a_published_file_count_alike(counter, network, counter_file, tmp_path):
    config = Config({"model": SETTINGS, "train_cfg": {"max_epochs": 3}})
    checkpoint = trained(network, tmp_path / "epoch_3.pth", config.pretty_text)
    for path in (checkpoint, counter_file):
        found = Counter.from_checkpoint(path)
        assert found.name == path.name
        assert found.stride == 8
        assert found(crowd()).count == counter(crowd()).count
        assert Counter.load(str(path))(crowd()).count == counter(crowd()).count


def test_what_the_training_started_from_is_not_looked_for(network, tmp_path):
    start = {"type": "Pretrained", "checkpoint": str(tmp_path / "gone.pth")}
    described = settings(init_cfg=start, backbone__init_cfg=start)
    text = Config({"model": described}).pretty_text
    for path in (
        trained(network, tmp_path / "a.pth", text),
        written(network, tmp_path / "a.safetensors", described),
    ):
        assert Counter.from_checkpoint(path)(crowd()).count > 0


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (None, "does not describe its network; expected a checkpoint of `ean train` with a config of a counter"),
        ([], "does not describe its network"),
        ("CrowdCounter", "does not describe its network"),
        ({}, "is of type None; expected"),
        (settings(type="ImageClassifier"), "is of type 'ImageClassifier'; expected"),
        (settings(backbone__depth=21), "cannot be built: unknown depth 21; choose from 20"),
        (settings(backbone__attention="ECA"), "cannot be built: unknown attention 'ECA'"),
        (settings(backbone__type="Backbone"), "a network may only use registered modules"),
        (settings(backbone=None), "cannot be built: "),
        (settings(heads=3), "cannot be built: .*unexpected keyword argument 'heads'"),
        (settings(head_channels=10**13), r"first density.0.* in the file, \(10000000000000,.* in the network"),
        (settings(head_channels=64), "differ in shape from those of CrowdCounter; first density.0."),
        (settings(backbone__scheme="full"), "it lacks backbone"),
    ],
)
def test_a_file_of_another_network_is_refused_by_name(network, tmp_path, described, message):
    for path in (
        written(network, tmp_path / "a.safetensors", described),
        trained(network, tmp_path / "a.pth", f"model = {described!r}"),
    ):
        with pytest.raises(ValueError, match=rf"{path.name}.* {message}"):
            Counter.from_checkpoint(path)


@pytest.mark.parametrize(
    "described",
    [
        settings(type="os.system"),
        settings(type="os.system", command="touch executed"),
        settings(backbone__type="os.system"),
        settings(backbone={"type": "subprocess.run", "args": ["touch", "executed"]}),
        settings(loss={"type": "builtins.exec", "source": "open('executed', 'w')"}),
        settings(data_preprocessor__init_cfg={"type": "Pretrained", "checkpoint": "executed"}),
        settings(loss={"type": "DensityL2", "init_cfg": {"type": "os.system"}}),
        settings(backbone__attention={"type": "os.system"}),
    ],
)
def test_settings_that_would_execute_something_are_refused_by_name(network, tmp_path, monkeypatch, described):
    monkeypatch.chdir(tmp_path)
    for path in (
        written(network, tmp_path / "a.safetensors", described),
        trained(network, tmp_path / "a.pth", f"model = {described!r}"),
    ):
        with pytest.raises(ValueError, match=path.name):
            Counter.from_checkpoint(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "text",
    [
        "model = __import__('os').system('touch executed')",
        "import os\nos.system('touch executed')",
        "model = dict(type='CrowdCounter', backbone=open('executed', 'w'))",
        "model = [",
    ],
)
def test_a_config_in_a_checkpoint_is_read_and_not_executed(network, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"the settings in .*a\.pth cannot be read"):
        Counter.from_checkpoint(trained(network, tmp_path / "a.pth", text))
    assert not (tmp_path / "executed").exists()


def test_a_pickle_of_a_whole_network_and_bare_weights_are_refused(network, tmp_path):
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"whole\.pth cannot be read as plain weights: it would execute code"):
        Counter.from_checkpoint(tmp_path / "whole.pth")
    torch.save(network.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ValueError, match=r"bare\.pth does not describe its network"):
        Counter.from_checkpoint(tmp_path / "bare.pth")


def test_a_classifier_is_refused(tmp_path):
    described = {"type": "ImageClassifier", "num_classes": 10, "backbone": SETTINGS["backbone"]}
    classifier = ImageClassifier(SETTINGS["backbone"], 10)
    for path in (
        written(classifier, tmp_path / "a.safetensors", described),
        trained(classifier, tmp_path / "a.pth", Config({"model": described}).pretty_text),
    ):
        with pytest.raises(ValueError, match=rf"{path.name} is of type 'ImageClassifier'"):
            Counter.load(str(path))


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", bytes(100), b"{}"])
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        Counter.from_checkpoint(tmp_path / name)


def test_a_checkpoint_that_was_cut_off_is_refused_by_name(network, counter_file, tmp_path):
    whole = trained(network, tmp_path / "whole.pth", Config({"model": SETTINGS}).pretty_text)
    for path in (whole, counter_file):
        cut = tmp_path / f"cut{path.suffix}"
        content = path.read_bytes()
        for length in (50, len(content) // 2, len(content) - 1):
            cut.write_bytes(content[:length])
            with pytest.raises(ValueError, match=cut.name):
                Counter.from_checkpoint(cut)


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors", "runs/best.pt", "runs/gone"])
def test_a_missing_checkpoint_is_refused_by_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*(gone|best)"):
        Counter.load(name)


# ---------------------------------------------------------------- models of the zoo


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ean_resnet20_se.cifar100", r"ean_resnet20_se\.cifar100 is for image classification; published counters: \w+"),
        ("ean_resnet20_se.shanghaitech_c", r"'ean_resnet20_se.shanghaitech_c'.*did you mean .*shanghaitech"),
        ("resnet21", r"there is no model 'resnet21'"),
        ("resnet20", r"resnet20 is for image classification; published counters: \w+"),
        ("", r"''"),
    ],
)
def test_a_name_that_is_no_counters_is_answered_with_what_there_is(name, message):
    for make in (Counter.from_zoo, Counter.load):
        with pytest.raises(ValueError, match=message):
            make(name)


def test_where_no_counter_is_published_that_is_said(monkeypatch):
    monkeypatch.setattr("zoo.list_models", lambda pattern, pretrained: [])
    with pytest.raises(ValueError, match="published counters: none yet, give a checkpoint of `ean train`"):
        Counter.from_zoo("ean_resnet20_se.cifar100")


# ---------------------------------------------------------------- engines


def test_onnx_runtime_counts_the_same_in_images_of_any_size_and_in_tiles(network, tmp_path, monkeypatch):
    monkeypatch.setenv("EAN_HOME", str(tmp_path))
    monkeypatch.setattr(engine, "LOADING_S", 1e-9)
    monkeypatch.setattr(engine, "EXPORTING_S", 1e-9)
    plain, fast = Counter(network, device="cpu"), Counter(network, device="cpu")
    plain.engine._failed = True
    for one in (plain, fast):
        statistics = {"center": torch.zeros(128), "scale": torch.ones(128), "axes": torch.eye(128)[:64]}
        one.network.familiar.learn(
            {**statistics, "variances": torch.ones(64), "rest": torch.tensor(1.0), "limit": torch.tensor(2.0)}
        )
    fast(crowd())
    for height, width in ((60, 101), (96, 64), (24, TILE + 40)):
        expected, found = plain(crowd(height, width)), fast(crowd(height, width))
        assert found.count == pytest.approx(expected.count, rel=1e-4)
        np.testing.assert_allclose(found.density, expected.density, rtol=1e-3, atol=1e-4 * expected.density.max())
        assert found.strangeness == pytest.approx(expected.strangeness, rel=1e-4)
    assert fast.engine.passes == {PYTORCH: 1, ONNXRUNTIME: 4}
    assert plain.engine.passes == {PYTORCH: 4}


def test_a_counter_with_windows_has_a_graph_for_each_size(tmp_path, monkeypatch):
    changed = settings(backbone__attention={"type": "SE", "window": (64, 96)})
    torch.manual_seed(0)
    made = Counter(MODELS.build(changed).eval(), device="cpu")
    assert made.engine.wrap is OneSizeCounterMaps

"""Networks are exported once that pays, kept, and computed by ONNX Runtime; PyTorch goes on if anything fails."""

import copy
import os
from collections import Counter

import pytest
import torch
from mmengine.registry import MODELS

from ean_core.inference import deploy, engine, export
from ean_core.inference.engine import ONNXRUNTIME, PYTORCH, Engine
from ean_core.inference.export import FromPixels

SETTINGS = {
    "type": "ImageClassifier",
    "num_classes": 5,
    "backbone": {"type": "EANResNetCIFAR", "depth": 20, "attention": "SE", "scheme": "010-100-000"},
}


class OneSize(FromPixels):
    any_size = False


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return deploy(MODELS.build(SETTINGS).eval())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of graphs; they pay from the second image on."""
    monkeypatch.setenv("EAN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(engine, "LOADING_S", 1e-9)
    monkeypatch.setattr(engine, "EXPORTING_S", 1e-9)
    return tmp_path / "home" / "graphs"


@pytest.fixture
def exports(monkeypatch):
    """Sizes of the images of each export."""
    done, write = [], export.write_onnx
    monkeypatch.setattr(export, "write_onnx", lambda *args, **named: (done.append(args[2]), write(*args, **named)))
    return done


@pytest.fixture(scope="module")
def content(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "graph.onnx"
    export.write_onnx(network, path, 32)
    return path.read_bytes()


def test_a_graph_is_exported_when_that_pays_and_loaded_by_the_next(network, folder, exports, monkeypatch):
    images = torch.randn(2, 3, 40, 33).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = network(images)
        first = Engine(network, FromPixels)
        for _ in range(3):
            (found,) = first(images)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert first.passes == {PYTORCH: 1, ONNXRUNTIME: 2}
    assert first.used == "PyTorch and ONNX Runtime"
    assert exports == [engine.TRACED]
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(engine, "EXPORTING_S", 1e9)
    second = Engine(deploy(MODELS.build(SETTINGS).eval()), FromPixels)
    second.network.load_state_dict(network.state_dict())
    with torch.inference_mode():
        second(images)
        torch.testing.assert_close(second(images)[0], expected, rtol=1e-4, atol=1e-5)
    assert second.passes[ONNXRUNTIME] == 1
    assert len(exports) == 1
    with torch.inference_mode():  # other weights, another graph
        third = Engine(deploy(MODELS.build(SETTINGS).eval()), FromPixels)
        third(images)
        third(images)
    assert third.passes == {PYTORCH: 2}


def test_a_copy_of_an_engine_computes_with_its_own_weights(network, folder):
    images = torch.randn(1, 3, 40, 33)
    with torch.inference_mode():
        first = Engine(network, FromPixels)
        for _ in range(2):
            expected = first(images)[0]
        copied = copy.deepcopy(first)
        assert copied.network is not first.network
        for _ in range(2):
            torch.testing.assert_close(copied(images)[0], expected, rtol=1e-4, atol=1e-5)
    assert copied.passes == first.passes + Counter({ONNXRUNTIME: 2})


def test_a_damaged_graph_is_removed_and_not_loaded(content, folder, log):
    engine.keep_graph("a", content)
    assert engine.read_graph("a") == content
    (path,) = folder.iterdir()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    path.write_bytes(damaged)
    assert engine.read_graph("a") is None
    assert not path.exists()
    assert "is damaged" in log.text


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_others_can_write_to_is_not_used(content, folder):
    engine.keep_graph("a", content)
    folder.chmod(0o777)
    assert engine.read_graph("a") is None
    engine.keep_graph("b", content)
    assert [path.name[0] for path in folder.iterdir()] == ["a"]


def test_the_graphs_used_last_are_kept(folder, monkeypatch):
    monkeypatch.setattr(engine, "KEPT", 2)
    for age, name in enumerate("abc"):
        engine.keep_graph(name, name.encode())
        os.utime(next(folder.glob(f"{name}.*")), (age, age))
    engine.read_graph("b")
    engine.keep_graph("d", b"d")
    assert {path.name[0] for path in folder.iterdir()} == {"b", "d"}


def test_each_size_has_a_graph_if_the_network_needs_it(network, content, folder, monkeypatch):
    monkeypatch.setattr(engine, "LOADED", 1)
    written = []

    def write(network, path, size, *, wrap):
        written.append(size)
        path.write_bytes(content)

    monkeypatch.setattr(export, "write_onnx", write)
    made = Engine(network, OneSize)
    with torch.inference_mode():
        for size in ((32, 40), (48, 32), (32, 40)):
            for _ in range(2):
                made(torch.zeros(1, 3, *size))
    assert written == [(32, 40), (48, 32)]
    # The first graph made room for the second, so that loading it again has to pay again.
    assert made.passes == {PYTORCH: 3, ONNXRUNTIME: 3}


def test_weights_that_change_are_those_that_compute(network, folder, exports):
    images = torch.randn(1, 3, 40, 33)
    made = Engine(copy.deepcopy(network), FromPixels)
    with torch.inference_mode():
        for _ in range(2):
            before = made(images)[0]
    with torch.no_grad():
        made.network.fc.weight.mul_(2)  # in place
        made.network.fc.bias = torch.nn.Parameter(made.network.fc.bias + 1)
    with torch.inference_mode():
        expected = made.network(images)
        assert (expected - before).abs().max() > 0.1
        torch.testing.assert_close(made(images)[0], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(made(images)[0], expected, rtol=1e-4, atol=1e-5)
    assert made.passes == {PYTORCH: 1, ONNXRUNTIME: 3}
    assert len(exports) == 2


@pytest.mark.parametrize("fault", ["export", "graph", "session"])
def test_pytorch_goes_on_after_a_failure_and_says_why_once(network, content, folder, log, monkeypatch, fault):
    def write(network, path, size, *, wrap):
        if fault == "export":
            raise RuntimeError("no operator\nand a long story")
        path.write_bytes(content if fault == "session" else b"no graph")

    monkeypatch.setattr(export, "write_onnx", write)
    if fault == "session":
        monkeypatch.setattr(engine, "_session", lambda content, threads: object())
    images = torch.zeros(1, 3, 32, 32)
    made = Engine(network, FromPixels)
    with torch.inference_mode():
        for _ in range(3):
            torch.testing.assert_close(made(images)[0], network(images))
    assert made.passes == {PYTORCH: 3}
    assert log.text.count("PyTorch goes on without ONNX Runtime") == 1
    assert "long story" not in log.text


def test_pytorch_computes_without_onnx_runtime_and_in_other_precisions(network, folder, exports, monkeypatch):
    half = Engine(deploy(MODELS.build(SETTINGS).eval(), dtype=torch.bfloat16), FromPixels)
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    without = Engine(network, FromPixels)
    with torch.inference_mode():
        for made in (without, half):
            for _ in range(2):
                made(torch.zeros(1, 3, 32, 32))
            assert made.passes == {PYTORCH: 2}
    assert exports == []


def test_the_key_covers_weights_and_settings(network):
    key = engine.network_key(network, FromPixels)
    assert key == engine.network_key(network, FromPixels)
    assert key != engine.network_key(network, OneSize)
    other = deploy(MODELS.build(SETTINGS).eval())
    other.load_state_dict(network.state_dict())
    assert key == engine.network_key(other, FromPixels)
    next(other.backbone.blocks()).gain = 0.5
    assert key != engine.network_key(other, FromPixels)
    next(iter(network.state_dict().values())).add_(0)
    other = deploy(MODELS.build(SETTINGS).eval())
    assert key != engine.network_key(other, FromPixels)

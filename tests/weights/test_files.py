import functools
import hashlib
import random
import resource
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from ean_core.weights.files import WeightsFile, read_meta, read_state_dict, save_weights


@pytest.fixture
def state():
    return {"conv.weight": torch.randn(4, 3, 3, 3), "norm.weight": torch.randn(4), "norm.steps": torch.tensor(7)}


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_safetensors_come_back_as_they_were(tmp_path, state):
    save_weights(state, tmp_path / "new" / "folder" / "w.safetensors", {"scheme": "10-1"})
    assert same(read_state_dict(tmp_path / "new" / "folder" / "w.safetensors"), state)
    with safe_open(tmp_path / "new" / "folder" / "w.safetensors", "pt") as file:
        assert file.metadata() == {"scheme": "10-1"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s},
        lambda s: {"state_dict": s, "meta": {"epoch": 3}, "optimizer": [1, 2]},
        lambda s: {f"module.{name}": value for name, value in s.items()},
        lambda s: {"state_dict": {f"module.{name}": value for name, value in s.items()}},
    ],
    ids=["plain", "wrapped", "wrapped with more", "module.", "wrapped module."],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_pytorch_files_are_unwrapped(tmp_path, state, wrap, legacy):
    torch.save(wrap(state), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert same(read_state_dict(tmp_path / "w.pth"), state)
    assert same(read_state_dict(str(tmp_path / "w.pth")), state)
    assert same(read_state_dict(f"file://{tmp_path / 'w.pth'}"), state)


def test_module_is_cut_off_only_where_all_names_begin_with_it(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == {"module.a", "b"}


def test_a_prefix_keeps_what_is_under_it(tmp_path, state):
    whole = {f"module.backbone.{name}": value for name, value in state.items()} | {"module.head.bias": torch.ones(1)}
    torch.save(whole, tmp_path / "w.pth")
    assert same(read_state_dict(tmp_path / "w.pth", prefix="backbone."), state)
    with pytest.raises(ValueError, match=r"no key of .*w.pth starts with 'neck.'; its keys start with backbone, head"):
        read_state_dict(tmp_path / "w.pth", prefix="neck.")


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at /no/such/file.pth"):
        read_state_dict("/no/such/file.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda h, s: {"state_dict": s, "extra": h}, lambda h, s: h], ids=["beside", "alone"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, state, legacy, wrap):
    marker = tmp_path / "ran"
    torch.save(wrap(Hostile(marker), state), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"w.pth cannot be read as plain weights: .*would execute code"):
        read_state_dict(tmp_path / "w.pth")
    assert not marker.exists()
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>404</html>", b"version https://git-lfs\n", b"PK\x03\x04"]
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"{name} (cannot be read as plain weights|is not a complete safetensors file)"
    ):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, state, kind):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_weights(state, path, {})
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in random.Random(0).sample(range(len(whole)), 60):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=path.name):
            read_state_dict(path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"epoch": 3}, {"state_dict": 5}, {"optimizer": {"state": {0: {"momentum": torch.ones(1)}}}}, {}, 5],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="has no state dict: expected names and tensors"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("key", ["model", "model_state_dict", "net", "checkpoint.state_dict", "state_dict"])
def test_the_only_mapping_to_tensors_is_taken_and_named(tmp_path, log, key):
    tensors = {"a.weight": torch.ones(2), "a.bias": torch.zeros(2)}
    content = tensors
    for name in reversed(key.split(".")):
        content = {name: content, "epoch": 3, "best": torch.tensor(0.5)}
    torch.save({**content, "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == tensors.keys()
    assert ("the weights are those under" in log.text) == (key != "state_dict")
    assert key == "state_dict" or f"under '{key}'" in log.text


def test_several_networks_are_refused_by_name_unless_one_is_the_state_dict(tmp_path):
    one, two = {"a": torch.ones(1)}, {"a": torch.zeros(1), "b": torch.ones(1)}
    torch.save({"student": one, "teacher": two}, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"several state dicts: 'student' \(1 entries\), 'teacher' \(2 entries\); save"
    ):
        read_state_dict(tmp_path / "w.pth")
    torch.save({"state_dict": one, "state_dict_ema": two}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth")["a"] == 1


def test_values_that_are_not_tensors_are_named_and_left_out(tmp_path, log):
    torch.save({"a": torch.ones(1), "epoch": 3, "b": torch.ones(1)}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == {"a", "b"}
    assert "left out, since they are not tensors: epoch" in log.text


def test_the_error_lists_the_keys_of_the_file(tmp_path):
    torch.save({"epoch": 3, "history": [1, 2]}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="under a key such as 'state_dict' or 'model'; it has epoch, history"):
        read_state_dict(tmp_path / "w.pth")


def test_save_weights_leaves_the_old_file_whole_where_the_disk_is_full(tmp_path, state):
    path = tmp_path / "w.safetensors"
    save_weights(state, path, {"version": "1"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))
    try:
        with pytest.raises(Exception, match=r"w\.safetensors cannot be written: it would exceed the file size limit; "):
            save_weights({"big": torch.zeros(2**16)}, path, {"version": "2"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(read_state_dict(path), state)
    assert list(tmp_path.iterdir()) == [path]


def test_save_weights_leaves_no_partial_file_behind(tmp_path, state):
    save_weights(state, tmp_path / "w.safetensors", {})
    save_weights(state, tmp_path / "w.safetensors", {"again": "yes"})
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_saved_file_can_be_read_by_those_whom_the_umask_lets(tmp_path, state):
    (tmp_path / "ordinary").touch()
    save_weights(state, tmp_path / "w.safetensors", {})
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_save_weights_takes_parameters_and_strided_views(tmp_path):
    state = {"view": torch.arange(6.0).view(2, 3).T, "parameter": nn.Parameter(torch.ones(2))}
    save_weights(state, tmp_path / "w.safetensors", {})
    assert same(read_state_dict(tmp_path / "w.safetensors"), {name: value.detach() for name, value in state.items()})


def test_weights_from_an_address_are_read_as_plain_weights_on_every_torch(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    served = tmp_path / "served"
    served.mkdir()
    torch.save({"weight": torch.ones(2)}, served / "good.pth")
    torch.save({"weight": Evil()}, served / "evil.pth")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=served)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert torch.equal(read_state_dict(f"{address}/good.pth")["weight"], torch.ones(2))
        with pytest.raises(ValueError, match=r"evil.pth cannot be read as plain weights"):
            read_state_dict(f"{address}/evil.pth")
        server.shutdown()
    assert not (tmp_path / "executed").exists()


def test_a_weights_file_is_read_once_whatever_is_asked_of_it(tmp_path, state, monkeypatch):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, path)
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: read.append(args) or load(*args, **options))
    file = WeightsFile(path)
    assert str(file) == str(path)
    assert read == []
    assert same(read_state_dict(file), state)
    assert read_state_dict(file, "conv").keys() == {"weight"}
    assert read_meta(file) == {"epoch": 3}
    assert len(read) == 1
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_weights_file_fails_as_its_path_does(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*w\.pth"):
        read_state_dict(WeightsFile(tmp_path / "w.pth"))
    (tmp_path / "w.pth").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"w\.pth cannot be read as plain weights"):
        read_state_dict(WeightsFile(tmp_path / "w.pth"))

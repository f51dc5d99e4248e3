"""Sources of files, in order: package, cache, URL."""

import multiprocessing
import os
import shutil
import time

import pytest
import torch

import zoo
from zoo.download import DownloadError, Patience
from zoo.files import at_hand, cache, locate, resolve
from zoo.index import Index

QUICK = Patience(tries=2, timeout=0.5, backoff=0.01)
NAME = "ean_resnet20_se.digits"


def test_a_file_that_comes_with_the_index_needs_no_network(root, server, monkeypatch):
    monkeypatch.setenv("EAN_ZOO_INDEX", str(root))
    monkeypatch.setenv("EAN_ZOO_URL", server.address)
    monkeypatch.setenv("EAN_OFFLINE", "1")
    assert resolve(NAME).parent == root / "weights"
    assert server.requests == []
    assert not cache().exists()


def test_a_file_is_fetched_once_and_then_in_the_cache(elsewhere, server, monkeypatch):
    path = locate(elsewhere)
    assert path == cache() / elsewhere.file
    assert len(server.requests) == 1
    server.mode = 404
    assert locate(elsewhere) == path
    monkeypatch.setenv("EAN_OFFLINE", "1")
    assert resolve(NAME) == path
    assert len(server.requests) == 1


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:-1] + b"\0", lambda c: b""])
def test_a_damaged_file_in_the_cache_is_fetched_again(elsewhere, server, damage):
    path = locate(elsewhere)
    path.write_bytes(damage(path.read_bytes()))
    assert at_hand(elsewhere) is None
    assert at_hand_again(locate(elsewhere), elsewhere)
    assert len(server.requests) == 2


def test_a_damaged_file_of_the_package_is_passed_over(root, server, monkeypatch):
    entry = Index(root).entries[next(name for name in Index(root).entries if str(name) == NAME)]
    shutil.copy(entry.packaged_file, server.folder)
    entry.packaged_file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setenv("EAN_ZOO_INDEX", str(root))
    monkeypatch.setenv("EAN_ZOO_URL", server.address)
    assert locate(entry).parent == cache()


def at_hand_again(path, entry):
    return at_hand(entry) == path


def test_offline_never_touches_the_network_and_says_what_to_do(elsewhere, server, monkeypatch):
    monkeypatch.setenv("EAN_OFFLINE", "1")
    with pytest.raises(
        DownloadError, match=r"neither in this installation nor in .*, and EAN_OFFLINE forbids downloading"
    ):
        zoo.get_model(NAME, pretrained=True)
    assert server.requests == []
    monkeypatch.setenv("EAN_OFFLINE", "0")
    assert zoo.get_model(NAME, pretrained=True) is not None


def test_a_folder_may_stand_in_for_the_network(elsewhere, server, monkeypatch):
    monkeypatch.setenv("EAN_ZOO_URL", server.folder.as_uri())
    monkeypatch.setenv("EAN_OFFLINE", "1")
    assert locate(elsewhere).parent == cache()
    assert server.requests == []


def test_the_index_may_name_the_address(elsewhere, root, server, monkeypatch):
    monkeypatch.delenv("EAN_ZOO_URL")
    with pytest.raises(DownloadError, match=r"no download address is known; set EAN_ZOO_URL"):
        locate(elsewhere)
    head = root / "model-index.yml"
    head.write_text(head.read_text() + f"Base Address: {server.address}\n")
    assert locate(elsewhere).is_file()


@pytest.mark.parametrize("address", ["ftp://somewhere", "somewhere", "/some/folder"])
def test_an_address_of_another_kind_is_refused(elsewhere, monkeypatch, address):
    monkeypatch.setenv("EAN_ZOO_URL", address)
    with pytest.raises(DownloadError, match=r"cannot download from '.*': expected http\(s\):// or hf://"):
        locate(elsewhere)


@pytest.mark.parametrize("mode", [404, 403, "html", "altered", "short", "truncate", "stall"])
def test_a_failure_leaves_no_file_and_the_next_attempt_succeeds(elsewhere, server, mode):
    server.mode = mode
    with pytest.raises(DownloadError):
        locate(elsewhere, patience=QUICK)
    assert not (cache() / elsewhere.file).exists()
    server.mode = "ok"
    assert locate(elsewhere).is_file()
    assert {path.suffix for path in cache().iterdir()} - {".lock"} == {".safetensors"}


def test_models_of_the_package_load_for_users_without_a_home(root, monkeypatch):
    monkeypatch.setenv("EAN_ZOO_INDEX", str(root))
    for name in ("EAN_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", _nobody)
    assert resolve(NAME).parent == root / "weights"
    next((root / "weights").glob(f"{NAME}*")).unlink()
    with pytest.raises(OSError, match=r"this user has no home folder; set EAN_HOME to a folder for downloads"):
        resolve(NAME)


def _nobody():
    raise RuntimeError("Could not determine home directory.")


def test_a_process_that_dies_with_the_lock_gives_it_back(elsewhere, server):
    server.modes = ["stall"]
    context = multiprocessing.get_context("fork")
    process = context.Process(target=locate, args=(elsewhere,))
    process.start()
    while not server.requests:
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    server.released.set()
    assert locate(elsewhere).is_file()


def test_a_cache_that_cannot_be_written_is_named(elsewhere, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EAN_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"the cache .*file/zoo is not writable \(Not a directory\); set EAN_HOME"):
        locate(elsewhere)


def _load(barrier, results):
    torch.set_num_threads(1)
    barrier.wait()
    model = zoo.get_model(NAME, pretrained=True)
    results.put((os.getpid(), float(model.fc.weight.double().sum())))


def test_ten_processes_fetch_once_and_all_load(elsewhere, server):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(10), context.Queue()
    processes = [context.Process(target=_load, args=(barrier, results)) for _ in range(10)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len({pid for pid, _ in found}) == 10
    assert len({value for _, value in found}) == 1
    assert [path for path, _ in server.requests] == [f"/{elsewhere.file}"]


def test_a_repository_of_the_hub(elsewhere, server, hub, monkeypatch):
    file = server.folder / elsewhere.file
    content = file.read_bytes()
    hub.files["someone/models"] = {elsewhere.file: content}
    monkeypatch.setenv("EAN_ZOO_URL", "hf://someone/models@v1")
    assert locate(elsewhere).parent == cache()
    assert any("/someone/models/resolve/v1/" in path for path in hub.requests)
    shutil.rmtree(cache())
    hub.files["someone/models"][elsewhere.file] = content[:-1] + b"?"
    shutil.rmtree(hub.cache)
    with pytest.raises(DownloadError, match=r"of hf://someone/models@v1 is not the published file"):
        locate(elsewhere)
    hub.files["someone/models"][elsewhere.file] = content
    assert locate(elsewhere).is_file()  # although the hub's cache is damaged
    shutil.rmtree(cache())
    monkeypatch.setenv("EAN_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"EAN_OFFLINE forbids"):
        locate(elsewhere)
    monkeypatch.delenv("EAN_OFFLINE")
    monkeypatch.setenv("EAN_ZOO_URL", "hf://someone/others")
    with pytest.raises(DownloadError, match=r"could not be downloaded from hf://someone/others"):
        locate(elsewhere)

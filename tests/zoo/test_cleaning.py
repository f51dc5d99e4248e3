"""``ean zoo clean``: what it removes from the cache, and what it never touches."""

import io
import json

import pytest

from ean_core.common.writing import file_lock
from tasks.cli import main
from zoo.cleaning import Cached, contents, remove
from zoo.files import cache, locate

NAME = "ean_resnet20_se.digits"
OLD, OTHER = f"{NAME}-00000000.safetensors", "resnet50.imagenet-00000000.safetensors"


@pytest.fixture
def filled(elsewhere, server, tmp_path):
    """A cache with a current file, an old version, abandoned and running downloads, links, and files of others."""
    locate(elsewhere)
    folder, victim = cache(), tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in (OLD, f"{OLD}.part", f"{OTHER}.part", OTHER, "notes.txt", "notes.part", "notes.lock"):
        (folder / name).write_bytes(b"x" * 1000)
    (folder / f"{NAME}-11111111.safetensors").symlink_to(victim)
    (folder / f"{NAME}-22222222.safetensors.part").symlink_to(victim)
    (folder / "sub").mkdir()
    (folder / "sub" / OLD).write_bytes(b"x")
    return elsewhere


def names(folder):
    return {path.name for path in folder.iterdir()}


def useless():
    return {each.path.name for each in contents() if each.useless}


def run(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["zoo", "clean", *words])
    output = capsys.readouterr()
    return stop.value.code, output.out + output.err


def test_what_is_superseded_or_abandoned_is_removed_and_nothing_else(filled, capsys, tmp_path):
    before = names(cache())
    gone = {OLD, f"{OLD}.part", f"{OTHER}.part", f"{filled.file}.lock"}
    assert useless() == gone
    assert names(cache()) == before  # looking changes nothing
    code, text = run(capsys, "--yes")
    assert code == 0
    assert "superseded" in text
    assert "removed 4 files, 0.00 MB" in text
    assert names(cache()) == before - gone
    assert (cache() / "sub" / OLD).exists()
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert locate(filled).parent == cache()


def test_it_lists_and_asks_first(filled, capsys, monkeypatch):
    before = names(cache())
    assert run(capsys, "--dry-run")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("typer.confirm", lambda question: False)
        code, text = run(capsys)
    assert code == 0
    assert "4 files, 0.00 MB to remove" in text
    assert names(cache()) == before
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run(capsys)[0] == 1  # nobody can answer
    assert json.loads(run(capsys, "--json")[1])["removed"] == []
    assert names(cache()) == before


def test_json(filled, capsys):
    found = json.loads(run(capsys, "--json", "--yes")[1])
    assert found["cache"] == str(cache())
    assert OLD in found["removed"]
    assert {"file": filled.file, "bytes": filled.size, "note": "current", "useless": False} in found["files"]
    assert not (cache() / OLD).exists()


def test_a_download_in_progress_is_kept(filled):
    with file_lock(cache() / f"{OLD}.lock"):
        assert {f"{OLD}.part", f"{OLD}.lock"}.isdisjoint(useless())
        part = cache() / f"{OLD}.part"
        assert remove(Cached(part, 1000, "judged before it began", True)) == "in use by now"
        assert part.exists()
    assert {f"{OLD}.part", f"{OLD}.lock"} <= useless()


def test_damaged_files_are_removed(filled):
    path = cache() / filled.file
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert filled.file in useless()


def test_a_lock_that_is_a_link_is_kept_with_its_download(filled, tmp_path):
    (cache() / f"{OLD}.lock").symlink_to(tmp_path / "victim")
    assert {f"{OLD}.part", f"{OLD}.lock"}.isdisjoint(useless())


def test_an_empty_cache(root, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("EAN_HOME", str(tmp_path / "none"))
    code, text = run(capsys)
    assert code == 0
    assert text.startswith("0 files, 0.00 MB in ")
    assert not (tmp_path / "none").exists()

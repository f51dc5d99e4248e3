from pathlib import Path

from ean_core.data import data_root


def test_ean_data_names_the_folder(monkeypatch):
    monkeypatch.setenv("EAN_DATA", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert data_root() == Path("/somewhere")


def test_a_tilde_is_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("EAN_DATA", "~/data")
    assert data_root() == Path("/home/someone/data")


def test_without_it_data_are_in_the_users_cache(monkeypatch):
    monkeypatch.delenv("EAN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert data_root() == Path("/cache/ean/data")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert data_root() == Path("/home/someone/.cache/ean/data")


def test_empty_variables_count_as_not_set(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("EAN_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert data_root() == Path("/home/someone/.cache/ean/data")

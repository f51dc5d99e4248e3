"""Model arguments: zoo names, files, folders of runs."""

import logging

import pytest

from tasks.trained import checkpoint_of

NAME = "resnet20.digits"


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("tasks.trained.print_log", lambda text, *_: lines.append((text, _[-1])))
    return lines


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_folder(path):
    path.mkdir(parents=True)
    (path / "epoch_1.pth").touch()
    (path / "last_checkpoint").write_text(str(path / "epoch_1.pth"))
    return path


def test_the_zoos_name_wins_over_a_folder_and_that_is_said(tmp_path, said):
    run_folder(tmp_path / NAME)
    assert checkpoint_of(NAME) is None
    assert said == [(f"{NAME} is the model of the zoo; ./{NAME} is the folder here", logging.WARNING)]
    assert checkpoint_of(f"./{NAME}").name == "epoch_1.pth"
    assert checkpoint_of(str(tmp_path / NAME)).name == "epoch_1.pth"
    assert len(said) == 1


def test_the_zoos_name_wins_over_a_file(tmp_path, said):
    (tmp_path / NAME).touch()
    assert checkpoint_of(NAME) is None
    assert said[0][0].endswith("is the file here")


def test_nothing_is_said_where_there_is_no_other(said):
    assert checkpoint_of(NAME) is None
    assert said == []


def test_folders_with_names_that_have_no_weights_are_folders(tmp_path, said, monkeypatch):
    monkeypatch.setenv("EAN_ZOO_INDEX", str(tmp_path / "no index"))  # not read for names of other things
    for name in ("runs", "mine.digits"):
        assert checkpoint_of(run_folder(tmp_path / name).name).name == "epoch_1.pth"
    monkeypatch.delenv("EAN_ZOO_INDEX")
    assert checkpoint_of(run_folder(tmp_path / "resnet50.imagenet").name).name == "epoch_1.pth"
    assert said == []

import json
import os
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError

import mmengine
import numpy as np
import pytest
import torch
import torchvision

from ean_core.common.record import command, environment, read_record, write_record, write_text


def test_a_record_holds_its_fields_first_then_command_time_and_environment(tmp_path):
    path = write_record(tmp_path / "new" / "record.json", kind="test", metrics={"accuracy/top1": 70.5}, none=None)
    record = read_record(path)
    assert list(record) == ["kind", "metrics", "none", "command", "finished", "environment"]
    assert (record["kind"], record["metrics"], record["none"]) == ("test", {"accuracy/top1": 70.5}, None)
    assert record["command"] == command()
    assert record["environment"] == environment()
    assert abs((datetime.now(timezone.utc) - datetime.fromisoformat(record["finished"])).total_seconds()) < 60


def test_the_environment_says_versions_and_hardware_in_plain_values():
    found = environment()
    modules = {"torch": torch, "torchvision": torchvision, "mmengine": mmengine, "numpy": np}
    assert found["packages"].keys() == modules.keys()
    assert all(modules[name].__version__.startswith(version) for name, version in found["packages"].items())
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"]
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert json.loads(json.dumps(found)) == found


def test_the_version_of_a_fork_is_that_of_its_module(monkeypatch):
    def version(name):
        if name == "mmengine":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("ean_core.common.record.version", version)
    assert environment()["packages"] == {
        "torch": "1",
        "torchvision": "1",
        "mmengine": mmengine.__version__,
        "numpy": "1",
    }


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/venv/bin/ean", "train", "a b.py"], "ean train 'a b.py'"),
        (["/repo/tasks/cli.py", "time", "x"], "ean time x"),
        (["/repo/benchmarks/speed.py", "--n=3"], "speed.py --n=3"),
        (["/venv/bin/ean"], "ean"),
    ],
)
def test_the_command_is_what_one_would_type(monkeypatch, argv, expected):
    monkeypatch.setattr(sys, "argv", argv)
    assert command() == expected


def test_a_record_replaces_the_one_before_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, kind="a")
    write_record(path, kind="b")
    assert read_record(path)["kind"] == "b"
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write_record(tmp_path / "record.json", kind="a")
    with pytest.raises(TypeError):
        write_record(path, kind=tmp_path)
    assert read_record(path)["kind"] == "a"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_in_place_only_when_whole(tmp_path):
    path = tmp_path / "table.md"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not a run record"), ("{}", "has no 'environment'"), ("[1]", "has no 'environment'"), ("", "is not")],
)
def test_what_is_no_record_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.json.*{message}"):
        read_record(tmp_path / "x.json")


def test_a_missing_record_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "x.json")


def test_a_fifo_and_a_device_are_no_records_and_block_nobody(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("fifo", "device"):
        with pytest.raises(ValueError, match=f"{name} is not a run record: it is not a regular file"):
            read_record(tmp_path / name)

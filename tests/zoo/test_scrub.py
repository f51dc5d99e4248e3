"""No published file reveals the machine it was made on, or credentials for it."""

import shutil

import pytest

from ean_core.common.config import load_config
from ean_core.runs.training import run_test, run_training
from zoo.index import PACKAGED
from zoo.publish import publish
from zoo.scrub import scrub


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ean train a --work-dir /home/me/x", "ean train a --work-dir …/x"),
        ("--out=/srv/data/x.json", "--out=…/x.json"),
        ("'/a b/c'", "'…/c'"),
        ("load_from=file:///home/me/a.pth", "load_from=…/a.pth"),
        ("me@host:/home/me/x", "me@host:…/x"),
        ("~me/runs/x", "…/x"),
        (r"\\server\me\x", "…/x"),
        ("https://me:p@ss@host/a", "https://host/a"),
        ("a.init_kwargs.api_key=abc b=1", "a.init_kwargs.api_key=… b=1"),
        ("ean x --token abc --out y", "ean x --token … --out y"),
        ("https://host/a?token=abc&x=1", "https://host/a?token=…&x=1"),
        ("~/runs/x", "…/x"),
        (r"C:\Users\me\x.pth", "…/x.pth"),
        ("work_dirs/a/b", "work_dirs/a/b"),
        ("../data/x", "../data/x"),
        ("https://host/a/b", "https://host/a/b"),
        ("ean://resnet20.digits", "ean://resnet20.digits"),
        ("50 images/s, and/or", "50 images/s, and/or"),
        ("https://me:word@host/a", "https://host/a"),
        ("root=/", "root=/"),
    ],
)
def test_paths_and_logins(text, left):
    assert scrub(text) == left


def test_secrets_by_their_keys():
    settings = {"vis_backends": [{"type": "W", "init_kwargs": {"api_key": "abc", "anonymous": True}}], "hf_token": "x"}
    assert scrub(settings) == {
        "vis_backends": [{"type": "W", "init_kwargs": {"api_key": "…", "anonymous": True}}],
        "hf_token": "…",
    }


def test_what_is_published_says_nothing_of_the_machine(tmp_path):
    options = ["model.backbone.scheme=100-010-001", "train_cfg.max_epochs=1"]
    config = load_config("resnet20_se_digits", options)
    config.where = {"notes": f"{tmp_path}/notes.txt", "password": "correct horse"}
    checkpoint = run_training(config, tmp_path / "private/run")
    run_test(load_config("resnet20_se_digits", options), checkpoint, checkpoint.parent)
    for name in ("record.json", "test.json"):  # as if typed in the command
        path = checkpoint.parent / name
        path.write_text(
            path.read_text().replace('"command": "', f'"command": "ean train --work-dir {tmp_path}/private ')
        )
    root = tmp_path / "zoo"
    publish(checkpoint, load_config("resnet20_se_digits", options), root)
    assert str(tmp_path) in (checkpoint.parent / "record.json").read_text()
    for path in root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (bytes(tmp_path), b"correct horse", b"private/run"):
                assert secret not in content, path
    shutil.rmtree(root)


def test_what_comes_with_the_package_says_nothing_of_a_machine():
    for folder in ("records", "metafiles", "cards"):
        for path in (PACKAGED / folder).rglob("*"):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                assert scrub(text) == text, path
    for path in (PACKAGED / "weights").glob("*.safetensors"):
        head = path.read_bytes()
        header = head[8 : 8 + int.from_bytes(head[:8], "little")].decode()
        assert scrub(header.replace("\\/", "/")) == header, path

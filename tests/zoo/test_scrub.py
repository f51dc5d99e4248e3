"""No published file reveals the machine it was made on, or credentials for it."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from ean_core.common.config import config_root, load_config
from ean_core.runs.training import run_test, run_training
from zoo.index import PACKAGED
from zoo.publish import publish
from zoo.scrub import find_secrets, refuse_secrets, scrub


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ean train a --work-dir /home/me/x", "ean train a --work-dir …/x"),
        ("--out=/srv/data/x.json", "--out=…/x.json"),
        ("'/a b/c'", "'…/c'"),
        ("load_from=file:///home/me/a.pth", "load_from=…/a.pth"),
        ("me@host:/home/me/x", "…/x"),
        ("--work-dir /home/me", "--work-dir …"),
        (r"C:\Users\me", "…"),
        ("~me", "~me"),
        ("~me/runs/x", "…/x"),
        (r"\\server\me\x", "…/x"),
        ("~/runs/x", "…/x"),
        (r"C:\Users\me\x.pth", "…/x.pth"),
        ("work_dirs/a/b", "work_dirs/a/b"),
        ("../data/x", "../data/x"),
        ("https://host/a/b", "https://host/a/b"),
        ("ean://resnet20.digits", "ean://resnet20.digits"),
        ("50 images/s, and/or", "50 images/s, and/or"),
        ("root=/", "root=/"),
    ],
)
def test_paths(text, left):
    assert scrub(text) == left


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("pwd=hunter2", "a password"),
        ('{"password": "correct horse"}', "a password"),
        (r"{\"password\": \"hunter2\"}", "a password"),
        ("machine host login me password hunter2", "a password"),
        ("a.init_kwargs.api_key=abc b=1", "a key"),
        ("AWS_SECRET_ACCESS_KEY=abc", "a key"),
        ("ean x --token abc --out y", "a token"),
        ("ean x --hf-token 'abc'", "a token"),
        ("HF_TOKEN=abc ean train", "a token"),
        ("https://host/a?x=1&token=abc", "a token"),
        ("https://host/a?sig=abc", "a key in a URL"),
        ("https://host/a?x=1&key=abc", "a key in a URL"),
        ("https://host/a?X-Amz-Credential=abc", "credentials"),
        ("Authorization: Basic YWJj", "a secret"),
        ("Bearer abcdefgh12345678", "a bearer token"),
        ("hf_" + "AbCdEfGhIjKlMnOpQrSt", "a Hugging Face token"),
        ("sk-" + "proj-abcd1234efgh5678", "an API key"),
        ("AKIA" + "ABCDEFGHIJKLMNOP", "an AWS access key"),
        ("ghp_" + "abcdefghij0123456789", "a GitHub or GitLab token"),
        ("xoxb-" + "0123456789-abc", "a Slack token"),
        ("eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiJtZSJ9.c2ln", "a JSON web token"),
        ("-----BEGIN OPENSSH PRIVATE" + " KEY-----", "a private key"),
        ("https://me:p@ss@host/a", "a URL with a login"),
        ("https://abc@github.com/me/repository.git", "a URL with a login"),
        ("me@example.org", "an e-mail address"),
    ],
)
def test_secrets_in_texts(text, kind):
    assert [each.kind for each in find_secrets(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "ean train resnet20_se_cifar100 --amp --work-dir work_dirs/ean --cfg-options model.backbone.scheme=010-100-000",
        "model.backbone.out_type=cls_token with_cls_token=True num_tokens=196 token=196",
        "tokenizer=bert-base-uncased keys=['img'] key=a meta_keys=('a', 'b') monitor=a/token",
        "--num-token 196 --key value --passes 3 token: None password=${PASSWORD} api_key=<yours>",
        "git@github.com:owner/repository.git ssh://git@host/x hf://OWNER/NAME@main https://host/a?page=2&size=3",
        "hf_checkpoints sk-learn disk-0123456789abcdefgh basic characteristics, bearer of news",
    ],
)
def test_ordinary_texts_hold_no_secrets(text):
    assert list(find_secrets(text)) == []


def test_secrets_by_their_keys():
    settings = {"vis_backends": [{"init_kwargs": {"api_key": "abc", "anonymous": True}}], "hf_token": "x", "pwd": 12}
    found = [(each.place, each.kind) for each in find_secrets(settings)]
    assert found == [("vis_backends.0.init_kwargs.api_key", "a key"), ("hf_token", "a token"), ("pwd", "a password")]
    assert not list(find_secrets({"password": None, "api_key": "", "token": "None", "secret": "…", "cls_token": "a"}))


def test_this_machine_and_its_environment(monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "correct-horse")
    monkeypatch.setenv("LOGNAME", "grace")
    monkeypatch.setattr("socket.gethostname", lambda: "laptop-7.example")
    found = [each.kind for each in find_secrets(["x correct-horse", "Grace trained it", "on laptop-7", "graceful"])]
    variable = "the value of the environment variable SOME_SERVICE_TOKEN"
    assert found == [variable, "your user name", "the name of this machine"]


def test_a_refusal_names_places_and_kinds_and_no_secret():
    secret = "hf_" + "AbCdEfGhIjKlMnOpQrSt"
    with pytest.raises(ValueError, match="nothing was published") as caught:
        refuse_secrets({"record.json": {"settings": {secret: 1, "where": {"password": "hunter2"}}}})
    message = str(caught.value)
    assert "record.json, settings.where.password (a password)" in message
    assert "record.json, settings.(key 1) (a Hugging Face token)" in message
    assert secret not in message
    assert "hunter2" not in message


def test_the_time_is_linear():
    """The earlier pattern was cubic: 25 s for 2,500 characters. Each text here has 100,000 or more."""
    code = """
from zoo.scrub import find_secrets, scrub
for part in ("token", "a=a", "me@", "eyJaaaaaa.", "--a ", "sk-", "://", "a@b.", "login ", "/@", "~a", "bearer ", "="):
    for text in (part * (100_000 // len(part)), part + "a" * 100_000, "a" * 100_000 + part):
        scrub(text), list(find_secrets(text))
"""
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True, env={**os.environ})


def test_what_is_published_says_nothing_of_the_machine(tmp_path):
    options = ["model.backbone.scheme=100-010-001", "train_cfg.max_epochs=1"]
    config = load_config("resnet20_se_digits", options)
    config.where = {"notes": f"{tmp_path}/notes.txt"}
    checkpoint = run_training(config, tmp_path / "private/run")
    run_test(load_config("resnet20_se_digits", options), checkpoint, checkpoint.parent)
    for name in ("record.json", "test.json"):  # as if typed in the command
        path = checkpoint.parent / name
        path.write_text(
            path.read_text().replace('"command": "', f'"command": "ean train --work-dir {tmp_path}/private ')
        )
    root = tmp_path / "zoo"
    record, harmless = checkpoint.parent / "record.json", (checkpoint.parent / "record.json").read_text()
    record.write_text(harmless.replace('"notes":', '"password": "correct horse",\n"notes":'))
    with pytest.raises(ValueError, match=r"record\.json, settings\.where\.password \(a password\)") as caught:
        publish(checkpoint, load_config("resnet20_se_digits", options), root)
    assert "horse" not in str(caught.value)
    assert not root.exists()
    record.write_text(harmless)
    publish(checkpoint, load_config("resnet20_se_digits", options), root)
    assert str(tmp_path) in (checkpoint.parent / "record.json").read_text()
    for path in root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (bytes(tmp_path), b"private/run"):
                assert secret not in content, path
    shutil.rmtree(root)


def test_what_comes_with_the_package_says_nothing_of_a_machine():
    for folder in ("records", "metafiles", "cards"):
        for path in (PACKAGED / folder).rglob("*"):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                assert scrub(text) == text, path
                assert not list(find_secrets(text)), path
                if path.suffix in (".json", ".yml"):
                    assert not list(find_secrets(json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)))
    for path in (PACKAGED / "weights").glob("*.safetensors"):
        head = path.read_bytes()
        header = head[8 : 8 + int.from_bytes(head[:8], "little")].decode()
        assert scrub(header.replace("\\/", "/")) == header, path
        assert not list(find_secrets(header)), path
    for path in config_root().rglob("*.py"):
        assert not list(find_secrets(path.read_text(encoding="utf-8"))), path

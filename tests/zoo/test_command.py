import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from ean_core import EANResNet, EANResNetCIFAR
from ean_core.common.tasks import known_datasets
from ean_core.weights.files import read_state_dict
from ean_core.weights.loading import load_weights
from tasks.cli import main

NAME = "ean_resnet20_se.digits"


@pytest.fixture
def ean(capsys, monkeypatch):
    """Run a command and return its output."""

    def run(*words, fails=False):
        with pytest.raises(SystemExit) as stop:
            main(["zoo", *map(str, words)])
        output = capsys.readouterr()
        code = stop.value.code
        assert bool(code) is fails, output.err + str(code)
        return output.out + (code if isinstance(code, str) else "")

    return run


@pytest.fixture(autouse=True)
def _own(root, monkeypatch):
    monkeypatch.setenv("EAN_ZOO_INDEX", str(root))


def test_list(ean):
    text = ean("list")
    assert NAME in text
    assert "100-010-001" in text
    assert "no weights yet" not in text
    assert re.search(r"accuracy \d+\.\d\d % +│? *test ", text)
    assert "no weights yet" in ean("list", "--all")
    for pattern, message in (
        ("nothing", "'nothing'; `ean zoo list` lists them"),
        ("resnet20", "'resnet20'; '*resnet20*' matches"),
        ("*resnet50_dia*", "models without weights: ean_resnet50_dia.imagenet, full_"),
    ):
        assert message in ean("list", pattern, fails=True)
        assert message in ean("list", pattern, "--json", fails=True)
    entries = json.loads(ean("list", "*.digits", "--json"))
    assert {"resnet20.digits", NAME} <= {entry["name"] for entry in entries}
    assert {"name": "ean_resnet50_se.imagenet"} in json.loads(ean("list", "--all", "--json"))


def test_the_list_says_of_which_images_a_figure_is(ean, monkeypatch):
    monkeypatch.delenv("EAN_ZOO_INDEX")
    lines = [line for line in ean("list").splitlines() if "resnet20" in line]
    assert all((" val " in line) == ("shanghai" in line or "voc" in line) for line in lines)
    assert any(" val " in line for line in lines)
    found = {entry["name"]: entry["measured_on"] for entry in json.loads(ean("list", "--json"))}
    assert found["resnet20.shanghaitech_b"] == "validation images"
    assert found["resnet20.cifar100"] == "test images"


def test_a_terminal_of_80_columns_shows_a_line_per_model_by_data_set(ean, monkeypatch):
    monkeypatch.delenv("EAN_ZOO_INDEX")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    lines = re.sub(r"\x1b\[[\d;]*m", "", ean("list", "--all")).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if "resnet" in line]
    assert len(rows) == len(lines) - 5  # title, head and borders
    sets = [re.search(r"\.(\w+)", row)[1] for row in rows]
    assert list(dict.fromkeys(sets)) == [name for name in known_datasets() if name in sets]
    assert sum(one != other for one, other in pairwise(sets)) == len(set(sets)) - 1
    monkeypatch.setenv("COLUMNS", "200")
    assert "with the package" in ean("list")


def test_info(ean, root):
    text = ean("info", NAME)
    for fact in ("Top 1 Accuracy", "100-010-001", "275,014", "Training Command", f"in {root}"):
        assert fact in text
    assert json.loads(ean("info", NAME, "--json"))["scheme"] == "100-010-001"
    assert "there is no model 'x', `ean zoo list` lists those with weights" in ean("info", "x", fails=True)


def test_download(ean, elsewhere, tmp_path):
    text = ean("download", NAME)
    assert str(tmp_path / "home") in text
    files = json.loads(ean("download", NAME, "--to", tmp_path / "to", "--json"))
    assert load_file(files[NAME]).keys() == read_state_dict(f"{tmp_path}/home/zoo/{elsewhere.file}").keys()
    assert "no published model matches 'nothing\\*'" in ean("download", "nothing*", fails=True).replace("*", "\\*")
    assert "has no weights yet" in ean("download", "ean_resnet50_se.imagenet", fails=True)


def test_json_is_alone_on_standard_output_also_while_a_file_is_fetched(root, elsewhere):
    command = [sys.executable, "-m", "tasks.cli", "zoo", "download", NAME, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[NAME].endswith(elsewhere.file)
    assert f"downloading {elsewhere.file}" in done.stderr


def test_a_downloaded_backbone_loads_without_a_prefix(ean, tmp_path):
    files = json.loads(ean("download", NAME, "--backbone", "--to", tmp_path, "--json"))
    backbone = EANResNetCIFAR(20, "SE", "100-010-001", in_channels=1)
    load_weights(backbone, files[NAME], strict=True)
    assert load_file(files[NAME]).keys() == backbone.state_dict().keys()
    assert "--backbone writes new files: give --to FOLDER" in ean("download", NAME, "--backbone", fails=True)


def test_verify(ean, root):
    assert "good" in ean("verify", NAME, "--metrics")
    (verdict,) = json.loads(ean("verify", NAME, "--metrics", "--json"))
    assert verdict["good"]
    assert verdict["measured"]["Top 1 Accuracy"] > 10
    file = next((root / "weights").glob(f"{NAME}*"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert "SHA-256" in ean("verify", NAME, fails=True)


def test_publish(ean, trained, tmp_path):
    options = ("--to", tmp_path / "mine", "--cfg-options", "model.backbone.scheme=100-010-001")
    text = ean("publish", trained / "ean" / "epoch_1.pth", "resnet20_se_digits", *options)
    assert text.startswith(f"{NAME}: Top 1 Accuracy ")
    assert "it takes precedence over the package's model of the same name" in text
    assert (tmp_path / "mine" / "README.md").is_file()
    fields = json.loads(ean("publish", trained / "ean", "resnet20_se_digits", *options, "--json"))  # its checkpoint
    assert fields["Name"] == NAME


def test_import(ean, tmp_path):
    theirs = torchvision.models.resnet18(num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    text = ean("import", tmp_path / "w.pth", tmp_path / "w.safetensors")
    assert "ResNet-18 of torchvision, scheme 00-00-00-00" in text
    line = next(line for line in text.splitlines() if line.startswith("backbone="))
    settings = eval(line.removeprefix("backbone="), {"dict": dict})
    assert settings.pop("type") == "EANResNet"
    ours = EANResNet(**settings).eval()
    ours.init_weights()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(theirs.fc(ours(images)[-1].mean((2, 3))), theirs(images), atol=1e-5)
    assert (
        json.loads(ean("import", tmp_path / "w.pth", tmp_path / "w.safetensors", "--json"))["source"] == "torchvision"
    )
    assert "import writes safetensors: expected a file such as w.safetensors" in ean("import", "a", "w.pth", fails=True)
    assert "no checkpoint at" in ean("import", tmp_path / "none.pth", "w.safetensors", fails=True)


def test_the_group_lists_its_commands(ean):
    for words in ((), ("--help",)):
        assert [line.split()[1] for line in ean(*words).splitlines()] == [
            *("list", "info", "download", "clean", "verify", "publish", "retime", "import")
        ]
    assert "no command 'zoo lits'; did you mean `ean zoo list`?" in ean("lits", fails=True)

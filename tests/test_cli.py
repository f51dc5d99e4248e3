import csv
import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name

import pytest
from PIL import Image

from ean_core.common.config import packaged_configs
from tasks.cli import COMMANDS, EXAMPLES, INSTEAD, main

EAN = Path(sys.executable).with_name("ean")


def process(*words, **environment):
    return subprocess.run(
        [EAN, *words], capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=120
    )


def run(capsys, *words):
    """Exit status and what was printed, of a command run in this process."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = (re.sub(r"\x1b\[[\d;]*m", "", text) for text in capsys.readouterr())  # without colours
    return ended.value.code, out, err


# ---------------------------------------------------------------- the overview


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], []])
def test_help_lists_every_command_with_its_line(capsys, words):
    code, out, _ = run(capsys, *words)
    assert code == 0
    for name, text, _ in COMMANDS:
        assert re.search(rf"^  {name} +{re.escape(text)}$", out, re.MULTILINE)
    assert "EAN_DATA" in out
    assert "EAN_TRACEBACK" in out


@pytest.mark.parametrize("word", ["--help", "--version", "trian"])
def test_help_version_and_suggestions_import_nothing_heavy(word):
    done = process(word, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "tasks" in imported
    assert not imported & {"torch", "numpy", "mmengine", "typer", "rich", "click", "ean_core", "zoo"}


def test_the_version_is_the_distributions(capsys):
    for word in ("--version", "-V"):
        assert run(capsys, word) == (0, f"ean-zoo {version('ean-zoo')}\n", "")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trian", "ean: no command 'trian'; did you mean `ean train`? `ean --help` lists them."),
        ("Search", "ean: no command 'Search'; did you mean `ean search`? `ean --help` lists them."),
        ("compare", "ean: no command 'compare'; did you mean `ean search compare`? `ean --help` lists them."),
        ("correlate", "ean: no command 'correlate'; did you mean `ean search correlate`? `ean --help` lists them."),
        ("models", "ean: no command 'models'; use `ean zoo list`. `ean --help` lists all commands."),
        ("frobnicate", "ean: no command 'frobnicate'. `ean --help` lists them."),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(capsys, word, message):
    assert run(capsys, word)[0] == message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["crowd", "train"], "ean: no command 'crowd train'; use `ean train resnet18_se_crowd`."),
        (["seg", "train", "x"], "ean: no command 'seg train'; use `ean train resnet20_se_voc2012`."),
        (["search", "comapre"], "ean: no command 'search comapre'; did you mean `ean search compare`?"),
        (["search", "corelate", "x"], "ean: no command 'search corelate'; did you mean `ean search correlate`?"),
        (["zoo", "lsit"], "ean: no command 'zoo lsit'; did you mean `ean zoo list`?"),
    ],
)
def test_an_unknown_second_word_is_answered_with_what_to_type_instead(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, *words)[0].startswith(message)


def test_what_to_type_instead_exists():
    names = [name for name, *_ in COMMANDS]
    for given, instead in INSTEAD.items():
        assert given not in names
        command, _, config = instead.removeprefix("ean ").rpartition(" ")
        assert instead.removeprefix("ean ") in names or (command in names and config in packaged_configs())


# ---------------------------------------------------------------- before anything is computed

HEAVY = {"torch", "mmengine", "torchvision", "scipy", "matplotlib", "cv2", "mmseg", "sklearn", "pandas"}


def without_heavy_imports(*words):
    """Run a command in a new process, and check what it imports; its exit status and what it printed."""
    done = process(*words, PYTHONPROFILEIMPORTTIME="1", COLUMNS="200")
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in lines if line.startswith("import time:")}
    assert "tasks" in imported
    assert not imported & HEAVY
    return done.returncode, done.stdout + "\n".join(line for line in lines if not line.startswith("import time:"))


#: One command of each module with options.
MODULES = {target.split(":")[0]: name for name, _, target in COMMANDS}


@pytest.mark.parametrize("name", MODULES.values())
def test_help_of_a_command_imports_nothing_heavy(name):
    status, printed = without_heavy_imports(*name.split(), "--help")
    assert status == 0
    assert f"Usage: ean {name}" in printed


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["train"], 2, "Missing argument"),
        (["crowd", "predict"], 2, "Missing argument"),
        (["train", "resnet20_se_digits", "--frob"], 2, "No such option"),
        (["time", "x", "--dtype", "fp8"], 2, "Invalid value for '--dtype'"),
        (["train", "resnet20_se_digit"], 1, "did you mean 'resnet20_se_digits'"),
        (["test", "resnet20_se_digits", "no.pth"], 1, "no checkpoint at no.pth"),
        (["fold", "resnet20_se_digits", "tests/test_cly.py"], 1, "did you mean tests/test_cli.py?"),
        (["test", "resnet20_se_digits", "ean://resnet20.digits"], 1, "ean://resnet20.digits is a model of the zoo"),
        (["gates", "resnet20_se_digits", "resnet20.digits"], 1, "`ean zoo download resnet20.digits --to FOLDER` gives"),
        (["train", "resnet20_se_digits", "--epochs", "2"], 2, "use --cfg-options train_cfg.max_epochs=2"),
        (["train", "resnet20_se_digits", "--lr=0.1"], 2, "use --cfg-options optim_wrapper.optimizer.lr=0.1"),
        (
            ["train", "a", "--cfg-options", "train_cfg.max_epochs", "2"],
            2,
            "KEY=VALUE: --cfg-options train_cfg.max_epochs=2",
        ),
        (["crowd", "predict", "x.jpg", "--out", "README.md"], 1, "README.md is a file, not a folder; remove it, or"),
        (["seg", "predict", "x.jpg", "--out", "README.md"], 1, "README.md is a file, not a folder; remove it, or"),
        (["explain", "x.jpg", "--out", "README.md"], 1, "README.md is a file, not a folder; remove it, or"),
        (["zoo", "download", "--to", "README.md"], 1, "README.md is a file, not a folder; remove it, or"),
        (["crowd", "predict", "x.jpg"], 1, "ean crowd predict: there is no such file or folder: x.jpg"),
        (["seg", "predict", "x.jpg", "y"], 1, "ean seg predict: there is no such file or folder: x.jpg, y"),
        (["explain", "x.jpg"], 1, "ean explain: there is no such file or folder: x.jpg"),
        (["crowd", "predict", "zoo"], 1, "no image or video in zoo; supported: .avi"),
        (["explain", "zoo"], 1, "no image in zoo; supported: .avif .bmp"),
        (["zoo", "list", "pretrained"], 1, "no model matches 'pretrained'; `ean zoo list` lists them"),
        (["export", "resnet20_se_digits", "a.pth", "b.pth"], 1, "unknown format 'pth'"),
        (["seg", "evaluate", "resnet20_se_voc20", "x.pth"], 1, "did you mean 'resnet20_se_voc2012'"),
        (["crowd", "predict", "x.jpg", "--model", "resnet20.shanghaitech"], 1, "did you mean resnet20.shanghaitech_"),
        (["crowd", "predict", "x.jpg", "--top", "-1"], 1, "--top must be a number above 0"),
        (["explain", "x.jpg", "--model", "resnet20.cifar10"], 1, "did you mean resnet20.cifar100"),
        (["configs"], 0, "search/search_resnet20_se_digits"),
        (["zoo", "list", "*.cifar100"], 0, "ean_resnet20_se.cifar100"),
        (["zoo", "list", "--all", "--json"], 0, '"name": "ean_resnet50_se.imagenet"'),
        (["zoo", "info", "ean_resnet20_se.cifar100"], 0, "Training Command"),
        (["zoo", "info", "ean_resnet20_se.cifar10"], 1, "did you mean ean_resnet20_se.cifar100"),
    ],
)
def test_names_and_refusals_import_nothing_heavy(words, status, text):
    code, printed = without_heavy_imports(*words)
    assert code == status
    assert text in " ".join(printed.split())


@pytest.mark.parametrize("words", [("zoo", "list"), ("zoo", "info", "ean_resnet20_se.cifar100")])
def test_showing_models_imports_nothing_that_downloads(words):
    done = process(*words, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"zoo.index", "yaml"} <= imported
    assert not imported & {"zoo.download", "http.client", "ssl", "filelock", "rich.progress", "huggingface_hub"}


def test_a_declared_command_has_the_arguments_of_what_does_its_work_and_alone_their_defaults():
    declared = [getattr(import_module(module), function) for module, function in (t.split(":") for *_, t in COMMANDS)]
    done = [command for command in declared if hasattr(command, "done_by")]
    assert len(done) > 15
    for command in done:
        theirs, ours = (inspect.signature(each).parameters for each in (resolve_name(command.done_by), command))
        ours = {name: each for name, each in ours.items() if name not in ("verbose", "quiet")}  # of all that it prints
        assert list(theirs) == list(ours)
        assert {each.default for each in theirs.values()} == {inspect.Parameter.empty}, command.done_by


# ---------------------------------------------------------------- the commands


@pytest.mark.parametrize(("name", "target"), [(name, target) for name, _, target in COMMANDS])
def test_a_command_is_a_documented_function_and_has_help_of_its_own(capsys, name, target):
    module, function = target.split(":")
    found = getattr(import_module(module), function)
    code, out, _ = run(capsys, *name.split(), "--help")
    assert code == 0
    assert f"Usage: ean {name} [OPTIONS]" in out
    assert inspect.getdoc(found).splitlines()[0].split(".")[0] in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "mine"], "ean search: unknown config 'mine'"),
        (["search", "search_resnet20_se_digit"], "ean search: unknown config 'search_resnet20_se_digit'; did you mean"),
        (["search", "compare", "search_resnet20_se_digit"], "ean search compare: unknown config 'search_resnet20_se_"),
        (["search", "compare", "search_resnet20_se_digits"], "ean search compare: no supernet in work_dirs/supernet_"),
        (["search", "correlate", "search_resnet20_se_digits"], "ean search correlate: no supernet in work_dirs/super"),
    ],
)
def test_a_second_word_is_part_of_the_command_where_there_is_such_a_one(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert str(run(capsys, *words)[0]).startswith(message)


def test_the_second_word_of_a_command_is_no_command():
    alone = {name for name, _, _ in COMMANDS if " " not in name}
    for name, _, _ in COMMANDS:
        assert len(name.split()) <= 2
        assert " ".join(name.split()[1:]) not in alone


def test_names_are_unique_and_lines_short():
    names, texts, _ = zip(*COMMANDS, strict=True)
    assert len(set(names)) == len(names)
    assert all(len(text) <= 65 and not text.endswith(".") for text in texts)


def test_configs_are_listed(capsys):
    code, out, _ = run(capsys, "configs")
    assert code == 0
    assert "search/search_resnet20_se_digits" in out.splitlines()


def test_time_measures_the_three_variants_and_takes_several_options_after_one_flag(capsys, tmp_path):
    options = ["model.backbone.scheme=010-010-001", "model.backbone.attention=DIA"]
    words = ["time", "resnet20_se_digits", "--cfg-options", *options, "--batch", "2", "--rounds", "2"]
    code, out, _ = run(capsys, *words, "--threads", "1", "--out", str(tmp_path / "timing.json"))
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    variants = {"vanilla": "000-000-000", "Share-full": "111-111-111", "EAN": "010-010-001"}  # DIA has no Org-full
    schemes = {f"{name}, {form}": text for form in ("eager", "deployed") for name, text in variants.items()}
    assert {row[0]: row[-1] for row in rows} == schemes
    record = json.loads((tmp_path / "timing.json").read_text())
    assert (record["kind"], record["batch"], record["size"], record["channels"]) == ("timing", 2, 8, 1)
    assert list(record["networks"]) == list(schemes)
    for name, measured in record["networks"].items():
        form = name.split(", ")[1]
        assert (measured["form"], measured["baseline"]) == (form, f"vanilla, {form}")
        assert measured["macs"] > 2_500_000
        assert measured["peak_memory"] > 10_000
    assert record["networks"]["vanilla, deployed"]["increment"] == 0
    lines = list(csv.DictReader((tmp_path / "timing.csv").read_text().splitlines()))
    assert [line["network"] for line in lines] == list(schemes)
    assert float(lines[1]["median_s"]) == record["networks"]["Share-full, eager"]["median_s"]
    with Image.open(tmp_path / "timing.png") as image:
        assert image.width == 1050


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "resnet20_se_digit"], r"ean train: unknown config 'resnet20_se_digit'; did you mean"),
        (
            ["train", "nowhere/mine.py"],
            r"ean train: no config at nowhere/mine.py; `ean configs` lists the packaged",
        ),
        (
            ["train", "resnet20_se_digits", "--cfg-options", "seed"],
            r"ean train: --cfg-options takes KEY=VALUE, got 'seed'",
        ),
        (["test", "resnet20_se_digits", "missing.pth"], r"ean test: no checkpoint at missing.pth$"),
        (
            ["search", "resnet20_se_digits"],
            r"ean search: resnet20_se_digits has no `search` section; use a search config",
        ),
        (["search", "resnet20_se_digits", "--strategy", "random"], r"ean search: resnet20_se_digits has no `search` "),
        (
            ["search", "compare", "resnet20_se_digits"],
            r"ean search compare: resnet20_se_digits has no `search` section",
        ),
        (["search", "correlate", "resnet20_se_digits"], r"ean search correlate: resnet20_se_digits has no `search` "),
        (["search", "search_resnet20_se_digits"], r"ean search: no supernet in work_dirs/supernet_resnet20_se_digits;"),
        (["export", "resnet20_se_digits", "a.pth", "b.pth"], r"ean export: unknown format 'pth'"),
        (
            ["export", "resnet20_se_digits", "a.pth"],
            r"ean export: give a file to write, or --format with one of safetensors",
        ),
        (
            ["export", "resnet20_se_digits", "a.pth", "b.pt2", "--format", "onnx"],
            r"ean export: --format onnx needs a file like b.onnx, got b.pt2",
        ),
        (["export", "resnet20_se_digits", "a.pth", "--format", "onnx"], r"ean export: no checkpoint at a.pth"),
        (
            ["time", "resnet20_se_digits", "--cfg-options", "model.backbone.scheem=full"],
            r"ean time: model.backbone \(EANResNetCIFAR\) has no 'scheem'; did you mean model.backbone.scheme\?$",
        ),
        (["time", "resnet20_se_digits", "--cfg-options", "model.type=Classifier"], r"ean time: .*Classifier"),
        (
            ["time", "resnet20_se_digits", "--cfg-options", "model.backbone.scheme=[1,0"],
            r"ean time: --cfg-options: Imbal",
        ),
        (["time", "resnet20_se_digits", "resnet20_se_cifar100"], r"ean time: these networks take different images"),
    ],
)
def test_an_error_is_one_line_and_a_status(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EAN_TRACEBACK", raising=False)
    code, _, err = run(capsys, *words)
    assert re.match(message, code)
    assert "\n" not in code.strip()
    assert err == ""


def test_a_ledger_that_is_there_is_not_overwritten(capsys, tmp_path):
    (tmp_path / "ledger.jsonl").write_text("")
    (tmp_path / "x.pth").write_text("")
    supernet = ["--supernet", str(tmp_path / "x.pth")]
    words = ["search", "search_resnet20_se_digits", *supernet, "--work-dir", str(tmp_path)]
    assert (
        "ledger.jsonl exists; add --resume to continue it, or --work-dir to start elsewhere" in run(capsys, *words)[0]
    )


def test_an_error_ends_the_process_with_status_1_and_one_line_on_stderr():
    done = process("train", "resnet20_se_digit", EAN_TRACEBACK="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    # some library versions warn about each other before it
    assert re.fullmatch(r"ean train: unknown config .*", done.stderr.splitlines()[-1])


def test_an_error_has_no_escape_sequences(capsys, tmp_path):
    code, _, _ = run(capsys, "watch", str(tmp_path / "a\x1b[2J\u202eb"))
    assert "a\\x1b[2J\\u202eb" in code
    assert not set(code) & set("\x1b\u202e")


def test_on_demand_an_error_shows_where_it_came_from(monkeypatch):
    monkeypatch.setenv("EAN_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown config 'resnet20_se_digit'"):
        main(["train", "resnet20_se_digit"])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["train"], "train"),
        (["time", "resnet20_se_digits", "--rounds", "1"], "time"),
        (["train", "x", "--frob"], "train"),
        (["search", "compare"], "search compare"),
        (["search", "compare", "x", "--evaluations", "0"], "search compare"),
        (["search", "compare", "x", "--seeds", "0"], "search compare"),
        (["search", "correlate", "x", "--schemes", "two"], "search correlate"),
        (["search", "x", "--launcher", "horovod"], "search"),
    ],
)
def test_a_command_line_that_cannot_be_parsed_is_a_usage_error(capsys, words, name):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert f"Usage: ean {name} [OPTIONS]" in err
    assert err.splitlines()[-1] == f"For example: ean {name} {EXAMPLES[name]}"


def test_commands_with_required_arguments_have_an_example_of_names_and_options_that_exist():
    for name, _, target in COMMANDS:
        module, function = target.split(":")
        parameters = inspect.signature(getattr(import_module(module), function)).parameters
        required = [each for each, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
        assert bool(required) == (name in EXAMPLES), name
        words = EXAMPLES.get(name, "").split()
        options = [word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")]
        assert set(options) <= {*parameters}
        assert "config" not in required or {*words} & {*packaged_configs()}

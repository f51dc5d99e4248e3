"""Terminal output of trainings and tests, in processes of their own as users start them, and of their log files."""

import logging
import os
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext
from uuid import uuid4

import pytest
from mmengine.logging import MMLogger, print_log

from ean_core.common.output import printing
from ean_core.runs.terminal import restrain

TABLES = ("System environment:", "Hooks will be executed", "default_hooks = dict(", "HardDiskBackend", "Exp name")
SMALL = ["train_cfg.max_epochs=2", "train_dataloader.batch_size=400"]
#: Two lines of each epoch in mmengine's log.
LOGGED = ("Saving checkpoint at 2 epochs", "Epoch(train) [2]")


def run_ean(*words, folder):
    """The lines that a command prints on standard output, without a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", *map(str, words)],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\r" not in done.stdout
    return done.stdout.splitlines()


def matches(lines, patterns):
    assert len(lines) == len(patterns), "\n".join(lines)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


def log_of(folder):
    return "".join(path.read_text() for path in sorted(folder.glob("*/*.log")))


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A training with ``--verbose`` in a folder with a space, and its lines."""
    folder = tmp_path_factory.mktemp("terminal")
    words = ["train", "resnet20_se_digits", "--work-dir", "a run", "--verbose", "--cfg-options", *SMALL]
    return folder, run_ean(*words, "model.backbone.scheme=100-010-001", folder=folder)


def test_a_training_prints_a_header_a_line_per_epoch_and_the_next_command(tmp_path):
    words = ["train", "supernet_resnet20_se_digits", "--work-dir", "run", "--cfg-options", *SMALL]
    lines = run_ean(*words, "train_cfg.val_interval=1", folder=tmp_path)
    epoch = r"accuracy [\d.]+ %, loss [\d.]+, \d+ images/s"
    matches(
        lines,
        [
            r"train supernet_resnet20_se_digits: ResNet-20 SE, a random scheme in every iteration, [\d,]+ parameters",
            r"data: scikit-learn digits train, [\d,]+ images, 2 epochs; validation on [\d,]+",
            r"device: (CPU, 1 thread|.+)",
            r"output: run",
            rf"epoch 1/2: {epoch}, \d+ .*left",
            rf"epoch 2/2: {epoch}",
            r"trained: run/epoch_2.pth, \d+ images/s; validation: accuracy [\d.]+ %",
            r"search it: ean search search_resnet20_se_digits --supernet run/epoch_2.pth --cfg-options "
            r"train_dataloader.batch_size=400",
        ],
    )
    log = log_of(tmp_path / "run")
    for text in (*TABLES, *LOGGED):
        assert text in log


def test_verbose_prints_mmengines_log_too(shown):
    _, lines = shown
    text = "\n".join(lines)
    for part in (*TABLES, *LOGGED):
        assert part in text
    test = "ean test resnet20_se_digits 'a run' --cfg-options model.backbone.scheme=100-010-001"  # and no SMALL
    assert lines[-1] == f"test it: {test}"


def test_the_suggested_test_runs_and_quiet_leaves_its_result(shown):
    folder, lines = shown
    command = shlex.split(lines[-1].removeprefix("test it: ean "))
    result = r"accuracy [\d.]+ % \[[\d.]+, [\d.]+\]; record: a run/test.json"
    matches(run_ean(*command, "--quiet", folder=folder), [result])
    header = [
        r"test resnet20_se_digits: ResNet-20 SE, scheme 100-010-001, [\d,]+ parameters",
        r"data: scikit-learn digits test, 400 images",
        r"device: .+",
        r"weights: a run/epoch_2.pth",
        r"output: a run",
    ]
    again = run_ean(*command, folder=folder)
    matches(again, [*header, r"test: 1/1, 0 s left", result, r"time it: ean time 'a run'"])


def test_gates_have_a_header_and_quiet_leaves_the_table(shown, ean, monkeypatch):
    folder, _ = shown
    monkeypatch.chdir(folder)
    words = ["gates", "resnet20_se_digits", "a run", "--cfg-options", "model.backbone.scheme=100-010-001"]
    status, printed = ean(*words)
    assert status == 0
    assert [line.split(":")[0] for line in printed.splitlines()[:5]] == [
        "gates resnet20_se_digits",
        "data",
        "device",
        "weights",
        "output",
    ]
    status, quiet = ean(*words, "--quiet")
    assert status == 0
    assert quiet.lstrip().startswith("Gates of connected blocks")
    assert quiet.splitlines()[-1] == printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("quickstart", []),
        *((name, ["resnet20_se_digits"]) for name in ("train", "search", "search compare", "search correlate")),
        *((name, ["resnet20_se_digits", "a.pth"]) for name in ("test", "gates", "fold")),
        *((f"{name} evaluate", ["resnet20_se_digits", "a.pth"]) for name in ("crowd", "seg")),
    ],
)
def test_verbose_and_quiet_exclude_each_other(command, given, ean):
    words = [*command.split(), *given]
    status, _ = ean(*words, "--verbose", "--quiet")
    assert status == f"ean {command}: --verbose and --quiet exclude each other; give one of them, or neither"


@pytest.mark.parametrize(
    ("output", "seen"),
    [
        ({"verbose": False, "quiet": False}, {"ours warning", "checkpoint warning", "theirs error"}),
        ({"verbose": False, "quiet": True}, {"theirs error"}),
        (
            {"verbose": True, "quiet": False},
            {"ours debug", "ours info", "ours warning", "checkpoint warning"}
            | {"theirs info", "theirs warning", "theirs error"},
        ),
        (None, {"ours info", "ours warning", "checkpoint warning", "theirs info", "theirs warning", "theirs error"}),
    ],
)
def test_what_reaches_the_terminal_depends_on_who_wrote_it_and_the_file_gets_all(output, seen, tmp_path, capsys):
    logger = MMLogger.get_instance(uuid4().hex, log_file=str(tmp_path / "run.log"))
    restrain(logger)
    restrain(logger)  # once is enough
    sources = {"ours": "ean_core.inference.deploy", "checkpoint": "mmengine.runner.checkpoint", "theirs": "mmengine.io"}
    with printing(**output) if output else nullcontext():
        for name, module in sources.items():
            write = {"__name__": module, "print_log": print_log}
            exec("def log(*arguments): print_log(*arguments)", write)
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                text = f"{name} {logging.getLevelName(level).lower()}"
                if text not in ("checkpoint info", "checkpoint error", "ours error"):
                    write["log"](text, "current", level)
    lines = capsys.readouterr().out.splitlines()
    assert {line.rpartition(" - ")[2] for line in lines} == seen
    assert len(lines) == len(seen)
    assert {"ours info", "theirs warning"} <= set(
        re.findall(r" - (\w+ \w+)$", (tmp_path / "run.log").read_text(), re.M)
    )

"""Numbers that go wrong, data that say nothing, processes of a job that die, and the same seed twice."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image

from ean_core.common.config import load_config
from ean_core.common.errors import DivergedError
from ean_core.common.tasks import ACCURACY
from ean_core.runs.folder import Run
from ean_core.runs.training import run_test, run_training
from ean_core.search.heuristics import RandomSearch
from ean_core.search.ledger import read_lines
from ean_core.search.loop import search
from ean_core.search.reward import Reward
from ean_core.search.scorer import Score

from .conftest import DIGITS

SUPERNET = "supernet_resnet20_se_digits"
diverging = pytest.mark.fault("NaN, exploding rewards, one class, no connection")


@HOOKS.register_module(force=True)
class Poison(Hook):
    """Makes a weight or the loss no number, in one iteration."""

    def __init__(self, at, what):
        self.at, self.what = at, what

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at and self.what == "weight":
            next(runner.model.parameters()).data.view(-1)[0] = torch.nan
        if runner.iter == self.at and self.what == "last weight":  # which no loss of this epoch sees any more
            runner.model.fc.bias.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))


@diverging
@pytest.mark.parametrize(
    ("at", "what", "message"),
    [
        (25, "weight", r"the loss is NaN or infinite in epoch 2, iteration 2\d"),  # epochs are of 22
        (3, "weight", r"the loss is NaN or infinite in epoch 1, iteration \d.*Start again"),
        (46, "weight", r"epoch 3, iteration 4\d: training stops here. Continue from .*epoch_2.pth with"),
        (43, "last weight", r"a weight is NaN or infinite in epoch 2, iteration 44: .*epoch_1.pth"),
    ],
)
def test_training_ends_at_the_last_good_checkpoint(tally, tmp_path, at, what, message):
    config = load_config(DIGITS, ["model.backbone.scheme=full", "train_cfg.max_epochs=4"])
    config.custom_hooks = [{"type": "Poison", "at": at, "what": what}]
    with tally.case(), pytest.raises(DivergedError, match=message):
        run_training(config, tmp_path)
    for path in tmp_path.glob("*.pth"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    last = Run(tmp_path).latest
    if last:  # and what the error says does go on
        options = ["model.backbone.scheme=full", "train_cfg.max_epochs=1", f"load_from={last}"]
        assert run_training(load_config(DIGITS, options), tmp_path / "on").name == "epoch_1.pth"


@diverging
def test_a_rate_of_learning_that_is_far_too_high(tally, tmp_path, ean):
    options = ["model.backbone.scheme=none", "optim_wrapper.optimizer.lr=1e18", "param_scheduler.eta_max=1e18"]
    with tally.case():
        message, _ = ean("train", DIGITS, "--work-dir", tmp_path, "--cfg-options", *options)
        assert re.match(r"ean train: (the loss|a weight) is NaN or infinite", message)
        assert "optim_wrapper.clip_grad.max_norm=5" in message


class Scores:
    """An evaluator whose scores are what a test wants."""

    key = {"scores": "made up"}
    stages = (2, 2)
    metric = ACCURACY

    def __init__(self, value):
        self.value = value

    def evaluate(self, schemes):
        found = (self.value if scheme.connections == 2 else 50.0 + scheme.connections for scheme in schemes)
        return [Score(value, 0.5) for value in found]


@diverging
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e308 * 10])
def test_rewards_that_are_no_numbers(tally, tmp_path, value):
    def run(evaluator):
        strategy = RandomSearch((2, 2), seed=0, evaluations=30, schemes_per_step=1)
        return search(
            strategy, evaluator, Reward(), tmp_path / "ledger.jsonl", {"strategy": "random"}, say=lambda t: None
        )

    with tally.case(), pytest.raises(ValueError, match=r"has accuracy .* and reward .*, which must be finite"):
        run(Scores(value))
    lines, torn = read_lines(tmp_path / "ledger.jsonl")  # what was scored before is kept, and is plain JSON
    assert torn == b""
    assert all(line["accuracy"] < 100 for line in lines[1:])
    assert run(Scores(60.0)).best_seen.score == 60.0  # and gone on from, once it is mended


@diverging
def test_a_supernet_that_has_diverged(tally, tmp_path, digits_supernet, forks):
    content = torch.load(digits_supernet, weights_only=True)
    content["state_dict"]["fc.bias"][0] = torch.nan
    torch.save(content, tmp_path / "epoch_1.pth")
    with tally.case():
        words = ("search", "search_resnet20_se_digits", "--supernet", tmp_path / "epoch_1.pth", "--work-dir", tmp_path)
        process = forks.ean(*words)
        process.join(60)
        assert process.exitcode == 1
        assert "fc.bias has NaN or infinite values; train the supernet again" in forks.said()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder of pictures, a folder a class, of so many classes."""
    monkeypatch.setenv("EAN_DATA", str(tmp_path))

    def make(*classes):
        for split in ("train", "val"):
            for name in classes:
                folder = tmp_path / "imagenet" / split / name
                folder.mkdir(parents=True)
                for number in range(4):
                    Image.new("RGB", (40, 40), (40 * number, 0, 0)).save(folder / f"{number}.jpg")

    return make


@diverging
def test_training_on_one_class(tally, tmp_path, tree):
    tree("ant")
    config = load_config("resnet50_se_imagenet", ["train_cfg.max_epochs=1"])
    with tally.case(), pytest.raises(ValueError, match="only one class, 'ant'; classification needs at least two"):
        run_training(config, tmp_path / "run")


@diverging
def test_a_search_by_images_of_one_class(tally, tmp_path, digits_supernet, monkeypatch):
    from ean_core.data.resident import Digits
    from ean_core.search.bench import Bench

    bench = Bench(load_config("search_resnet20_se_digits"), digits_supernet)
    whole = Digits.__init__

    def of_one_class(self, *arguments, **options):
        whole(self, *arguments, **options)
        self.labels[:] = 3

    monkeypatch.setattr(Digits, "__init__", of_one_class)
    with (
        tally.case(),
        pytest.raises(ValueError, match=r"all \d+ validation images are of class 3 and cannot distinguish"),
    ):
        _ = bench.plain


@diverging
def test_a_scheme_with_no_connection(tally, tmp_path, forks):
    """It is the plain network: it trains, is tested and searched for; where gates are asked for, there are none."""
    with tally.case():
        options = ["model.backbone.scheme=none", "train_cfg.max_epochs=1"]
        checkpoint = run_training(load_config(DIGITS, options), tmp_path)
        assert run_test(load_config(DIGITS, options), checkpoint, tmp_path)["accuracy/top1"] > 0
        assert json.loads((tmp_path / "test.json").read_text())["scheme"] == "000-000-000"
        assert not [name for name in torch.load(checkpoint, weights_only=True)["state_dict"] if "attention" in name]
        process = forks.ean("gates", DIGITS, checkpoint, "--cfg-options", "model.backbone.scheme=none")
        process.join(60)
        assert process.exitcode == 1
        assert re.search(r"ean gates: .*(no connection|connects no block|no attention)", forks.said()), forks.said()


# ---------------------------------------------------------------- a rank that dies


def _ranks(folder):
    """Processes of the job that train, by what the system says of them."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:  # gone by now
            continue
        if str(folder).encode() in words and b"torch.distributed.run" not in words:
            found.append(int(place.name))
    return sorted(found)


@pytest.mark.fault("a dead rank of torchrun")
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rank_that_dies_ends_the_job_which_then_resumes(tally, tmp_path, victim):
    work_dir = tmp_path / "run"
    options = ["--cfg-options", "train_cfg.max_epochs=3", "train_dataloader.batch_size=32"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tasks.cli"]
    command += ["train", SUPERNET, "--launcher", "pytorch", "--resume", "--work-dir", str(work_dir), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def start():
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(command, env=environment, **pipes)

    job = start()
    try:
        end = time.monotonic() + 120
        while Run(work_dir).latest is None:
            assert job.poll() is None, job.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.05)
        ranks = _ranks(work_dir)
        assert len(ranks) == 2
        with tally.case():
            os.kill(ranks[victim], signal.SIGKILL)
            output, _ = job.communicate(timeout=60)
            assert job.returncode not in (0, None)
            assert "SIGKILL" in output or "-9" in output
            assert _ranks(work_dir) == []
            job = start()
            output, _ = job.communicate(timeout=240)
            assert job.returncode == 0, output[-3000:]
            assert Run(work_dir).latest.name == "epoch_3.pth"
            assert json.loads((work_dir / "record.json").read_text())["world_size"] == 2
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)


# ---------------------------------------------------------------- the same seed


@pytest.mark.fault("the same seed twice")
def test_the_same_seed_gives_the_same_tensors_and_ledger(tally, tmp_path, forks):
    for name in "ab":
        train = ("train", SUPERNET, "--work-dir", tmp_path / name, "--cfg-options", "train_cfg.max_epochs=2")
        process = forks.ean(*train)
        process.join(120)
        assert process.exitcode == 0, forks.said()
        few = ("search.strategy.type=ean", "search.strategy.evaluations=20", "search.finalists.count=2")
        words = ("search", "search_resnet20_se_digits", "--supernet", tmp_path / name / "epoch_2.pth")
        process = forks.ean(*words, "--work-dir", tmp_path / name / "search", "--cfg-options", *few)
        process.join(120)
        assert process.exitcode == 0, forks.said()
    with tally.case():
        one, other = (torch.load(tmp_path / name / "epoch_2.pth", weights_only=True)["state_dict"] for name in "ab")
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    with tally.case():
        ledgers = [
            [
                {key: value for key, value in line.items() if key != "seconds"}
                for line in read_lines(tmp_path / name / "search/ledger.jsonl")[0]
            ]
            for name in "ab"
        ]
        assert len(ledgers[0]) > 20
        assert ledgers[0] == ledgers[1]

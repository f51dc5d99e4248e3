import json
import time
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ean_core.common.config import load_config
from ean_core.common.errors import CannotWriteError
from ean_core.runs import progress_file
from ean_core.runs.folder import Run
from ean_core.runs.training import build_runner
from ean_core.watch.state import look

CONFIG = "supernet_resnet20_se_digits"
OPTIONS = ("train_cfg.max_epochs=3", "train_cfg.val_interval=1", "default_hooks.progress_file.interval=0")


class Watcher(Hook):
    """Record the progress after each iteration; simulate a kill in one of them."""

    priority = "LOWEST"

    def __init__(self, die_at=None):
        self.die_at = die_at
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        folder = Path(runner.work_dir)
        self.seen.append((look(folder), Run(folder).progress))
        if runner.iter + 1 == self.die_at:
            raise KeyboardInterrupt


def train(folder, die_at=None, resume_from=None):
    config = load_config(CONFIG, OPTIONS)
    if resume_from:
        config.load_from, config.resume = str(resume_from), True
    runner = build_runner(config, folder)
    watcher = Watcher(die_at)
    runner.register_hook(watcher)
    runner.train()
    return watcher.seen


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A training stopped in its third epoch of 16 iterations, and its progress then and after resuming."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(folder, die_at=40)
    before, dead = Run(folder).progress, look(folder, time.time() + 600)
    seen = train(folder, resume_from=folder / "epoch_2.pth")
    return before, dead, seen, Run(folder)


def test_a_run_that_is_stopped_says_how_far_it_came(stopped):
    before, dead, _, _ = stopped
    assert before["config"] == CONFIG
    assert (before["epoch"], before["epochs"], before["iteration"], before["iterations"]) == (3, 3, 40, 48)
    assert [step for step, _ in before["losses"]] == list(range(1, 41))
    assert [(one["epoch"], one["iteration"]) for one in before["validations"]] == [(1, 16), (2, 32)]
    assert before["images_per_second"] > 0
    assert 0 < before["learning_rate"] <= 0.1
    assert (before["finished"], before["starts"]) == (False, 1)
    assert (dead.running, dead.finished) == (False, False)


def test_a_run_that_resumes_continues_its_file(stopped):
    before, _, seen, run = stopped
    standing, first = seen[0]
    assert standing.running
    assert (standing.done, standing.total) == (33, 48)
    assert (first["epoch"], first["starts"], first["first_start"]) == (3, 2, before["first_start"])
    assert [step for step, _ in first["losses"]] == list(range(1, 34))
    assert first["losses"][:32] == before["losses"][:32]
    assert seen[-1][0].left is not None
    after = run.progress
    assert (after["finished"], after["iteration"], after["epoch"]) == (True, 48, 3)
    assert [one["epoch"] for one in after["validations"]] == [1, 2, 3]
    of_record = [{**one, "iteration": 16 * one["epoch"]} for one in run.record["validations"]]
    assert [pytest.approx(one) for one in of_record] == after["validations"]


def test_resuming_a_finished_run_changes_nothing(stopped):
    run = stopped[-1]
    text = run.path("progress.json").read_text()
    assert train(run.folder, resume_from=run.latest) == []
    assert run.path("progress.json").read_text() == text
    run.path("progress.json").write_text(
        text.replace('"finished": true', '"finished": false')
    )  # killed after its record
    train(run.folder, resume_from=run.latest)
    assert look(run.folder).finished


# ---------------------------------------------------------------- mmengine's own runner


class Endless(IterableDataset):
    """Has no length."""

    def __iter__(self):
        while True:
            yield {"inputs": torch.ones(3)}


class Counting(BaseModel):
    """Its loss is the number of the iteration."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.count = 0

    def forward(self, inputs, mode="tensor"):
        if mode == "predict":
            return [0]
        self.count += 1
        return {"loss": self.weight * 0 + self.count}


class Constant(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {"error": 0.5, "table": [1, 2]}


class SlowAtFirst(Dataset):
    """Takes its time for the images of the first four iterations."""

    def __len__(self):
        return 1000

    def __getitem__(self, item):
        time.sleep(0.05 if item < 16 else 0)
        return {"inputs": torch.ones(3)}


def run_plain(folder, iterations, data=None, **options):
    """An iteration-based training without our runner, configs and other hooks."""
    more = options.pop("more", {})
    others = dict.fromkeys(("logger", "checkpoint", "timer", "param_scheduler", "sampler_seed"))
    Runner(
        Counting(),
        str(folder),
        train_dataloader=DataLoader(data or Endless(), batch_size=4),
        train_cfg={"by_epoch": False, "max_iters": iterations, "val_interval": 5},
        val_dataloader=DataLoader([{"inputs": torch.ones(3)}], batch_size=1),
        val_cfg={},
        val_evaluator=[Constant()],
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={**others, "progress_file": {"type": "ProgressFileHook", **options}, **more.pop("hooks", {})},
        default_scope="mmengine",
        experiment_name=f"{folder}_{time.time()}",
        **more,
    ).train()
    return Run(folder)


def test_iterations_are_counted_where_there_are_no_epochs(tmp_path):
    progress = run_plain(tmp_path, 10, interval=0).progress
    assert (progress["config"], progress["finished"]) == (None, True)
    assert (progress["epoch"], progress["epochs"]) == (None, None)
    assert (progress["iteration"], progress["iterations"]) == (10, 10)
    assert progress["validations"] == [{"iteration": 5, "error": 0.5}, {"iteration": 10, "error": 0.5}]
    assert progress["learning_rate"] == 0.1


def test_the_clock_of_a_resumed_run_leaves_out_the_images_that_it_skips(tmp_path):
    """Those of four iterations, which take 0.8 s; the others take milliseconds."""
    checkpoint = {"type": "CheckpointHook", "by_epoch": False, "interval": 4, "save_last": False}
    hooks = {"checkpoint": checkpoint, "record": {"type": "RunRecordHook"}, "plain": {"type": "PlainCheckpointHook"}}
    run_plain(tmp_path, 4, SlowAtFirst(), interval=0, more={"hooks": hooks})
    more = {"hooks": hooks, "resume": True, "load_from": str(tmp_path / "iter_4.pth")}
    run = run_plain(tmp_path, 8, SlowAtFirst(), interval=0, more=more)
    assert run.progress["starts"] == 2
    assert run.progress["images_per_second"] > 50  # 16 images in 0.8 s would be 20
    assert run.record["seconds"] < 1.2  # the first four once
    assert (run.record["iterations"], [one["iteration"] for one in run.record["validations"]]) == (8, [5, 8])


@pytest.mark.parametrize(("iterations", "each"), [(7, 1), (8, 2), (15, 2), (16, 4), (100, 16)])
def test_the_history_of_losses_is_of_bounded_length(tmp_path, iterations, each):
    progress = run_plain(tmp_path, iterations, interval=0, points=8).progress
    ends = range(each, iterations + 1, each)
    assert progress["losses"] == [[end, end - (each - 1) / 2] for end in ends]  # the mean of `each` iterations
    assert progress["loss_interval"] == each


def test_it_is_written_now_and_then_only(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(progress_file, "write_text", lambda path, text: written.append(json.loads(text)["iteration"]))
    run_plain(tmp_path, 10, interval=1000)
    assert written == [0, 5, 10, 10, 10]  # at the start, after two validations, the epoch, the training


def test_one_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_file, "is_main_process", lambda: False)
    assert run_plain(tmp_path, 3, interval=0).progress is None


def test_a_training_goes_on_where_it_cannot_be_written(tmp_path, monkeypatch):
    def full(path, text):
        raise CannotWriteError(f"{path} cannot be written: the disk is full")

    monkeypatch.setattr(progress_file, "write_text", full)
    run_plain(tmp_path, 3, interval=0)
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert log.count("progress.json cannot be written") == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"iteration": 3}'])
def test_a_damaged_file_is_refused_by_readers_and_replaced_by_a_training(tmp_path, text):
    (tmp_path / "progress.json").write_text(text)
    with pytest.raises(ValueError, match=r"progress\.json"):
        _ = Run(tmp_path).progress
    assert run_plain(tmp_path, 3).progress["starts"] == 1

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from ean_core.watch.state import Runs, SearchRun, TrainingRun, find_runs, look, read_run
from ean_core.watch.view import show

from . import made
from .made import BEGAN, iteration, validation

COMPARISON = Path(__file__).parents[2] / "benchmarks/results/search_resnet20_se_cifar100/comparison"


def at(seconds):
    return BEGAN + seconds


# ---------------------------------------------------------------- a training


def test_a_running_training_says_where_it_is_and_what_is_left(tmp_path):
    lines = [
        iteration(1, 50),
        iteration(1, 100),
        iteration(2, 162),
        iteration(2, 212),
        validation(1, accuracy_top1=50.0),
    ]
    made.start(tmp_path, lines, until=120.0)
    run = read_run(tmp_path, now=at(125))
    assert isinstance(run, TrainingRun)
    assert run.state.running
    assert run.state.silence == 5
    assert run.state.usual == 25  # 50 iterations of half a second
    assert (run.epoch, run.epochs, run.step, run.epoch_length, run.total) == (2, 4, 212, 112, 448)
    assert run.images_per_second == 32
    assert run.elapsed == 125
    assert run.left == pytest.approx(120 / 212 * (448 - 212))  # validations count
    assert run.validations == {1: {"accuracy/top1": 50.0}}
    assert run.config == "resnet20_se_digits"


def test_without_news_it_is_not_called_running(tmp_path):
    made.start(tmp_path, [iteration(1, 50), iteration(1, 100)], until=50.0)
    patience = 60 + 2 * 25
    assert read_run(tmp_path, now=at(50 + patience)).state.running
    run = read_run(tmp_path, now=at(51 + patience))
    assert not run.state.running
    assert not run.state.finished
    assert run.left is None
    assert run.elapsed == 50  # until the last news


def test_news_are_those_of_log_and_checkpoints_too(tmp_path):
    made.start(tmp_path, [iteration(1, 50)], until=10.0)
    (tmp_path / "epoch_1.pth").touch()
    os.utime(tmp_path / "epoch_1.pth", (at(500), at(500)))
    run = read_run(tmp_path, now=at(510))
    assert run.state.silence == 10
    assert run.state.running
    assert run.checkpoint.name == "epoch_1.pth"


@pytest.mark.parametrize(
    ("log", "length"), [("Epoch(train)   [1][ 50/312]  lr: 1.0\nEpoch(val) [1][10/20]", 312), ("", None)]
)
def test_in_the_first_epoch_the_log_says_how_long_it_is(tmp_path, log, length):
    made.start(tmp_path, [iteration(1, 50), iteration(1, 100)], log=log, until=50.0)
    run = read_run(tmp_path, now=at(51))
    assert run.epoch_length == length
    assert run.left == (0.5 * (4 * 312 - 100) if length else None)


def test_images_of_all_processes_count(tmp_path):
    made.start(tmp_path, [iteration(1, 50)], log="    GPU number: 4\n")
    assert read_run(tmp_path, now=at(1)).images_per_second == 128


def test_epochs_shorter_than_the_interval_are_measured_too(tmp_path):
    made.start(tmp_path, [iteration(1, 22), iteration(2, 44), iteration(3, 66)])
    assert read_run(tmp_path, now=at(1)).epoch_length == 22


def test_what_a_killed_start_wrote_too_much_does_not_count(tmp_path):
    made.start(tmp_path, [iteration(1, 50), iteration(1, 100), iteration(2, 162), iteration(2, 212)], until=100.0)
    made.start(tmp_path, [iteration(2, 162, loss=0.3)], at=1000.0, until=1030.0)
    run = read_run(tmp_path, now=at(1031))
    assert [line["step"] for line in run.iterations] == [50, 100, 162]
    assert run.iterations[-1]["loss"] == 0.3
    assert run.step == 162
    assert run.elapsed == 31  # since that start
    assert run.left == 0.5 * (4 * 112 - 162)


def test_a_torn_last_line_is_no_error(tmp_path):
    made.start(tmp_path, json.dumps(iteration(1, 50)) + "\n" + json.dumps(iteration(1, 100))[:37])
    assert [line["step"] for line in read_run(tmp_path, now=at(1)).iterations] == [50]


def test_one_that_has_just_begun_is_running_without_a_line(tmp_path):
    made.start(tmp_path, None)
    run = read_run(tmp_path, now=at(2))
    assert run.state.running
    assert (run.epoch, run.step, run.left, run.best) == (0, 0, None, None)


def test_a_record_of_all_epochs_ends_it(tmp_path):
    made.start(tmp_path, [iteration(epoch, 50 * epoch) for epoch in (1, 2, 3, 4)], until=90.0)
    made.trained(tmp_path, at=100)
    run = read_run(tmp_path, now=at(160))
    assert run.state.finished
    assert run.state.silence == 60
    assert (run.elapsed, run.images_per_second, run.left) == (100.0, 64.0, None)


def test_a_test_afterwards_leaves_it_finished(tmp_path):
    made.start(tmp_path, [iteration(4, 200)], until=90.0)
    made.trained(tmp_path, at=100)
    made.start(tmp_path, None, at=110.0, until=111.0)
    made.record(tmp_path / "test.json", at=112, kind="test", metrics={"accuracy/top1": 70.5})
    run = read_run(tmp_path, now=at(160))
    assert run.state.finished
    assert run.test == {"accuracy/top1": 70.5}


def test_more_epochs_or_a_new_start_after_the_record_go_on(tmp_path):
    longer, anew = tmp_path / "longer", tmp_path / "anew"
    for folder in (longer, anew):
        made.start(folder, [iteration(4, 200)], until=90.0)
        made.trained(folder, at=100)
    made.start(longer, None, at=200.0, until=201.0, epochs=8)
    made.start(anew, [iteration(1, 50)], at=200.0, until=225.0)
    assert read_run(longer, now=at(202)).state.running
    assert read_run(anew, now=at(226)).state.running
    assert read_run(anew, now=at(226)).step == 50


@pytest.mark.parametrize(
    ("rule", "metric", "best"),
    [("", "accuracy_top1", 2), (", rule='less', save_best='count/MAE'", "count_MAE", 3)],
)
def test_the_best_validation_is_by_the_rule_of_its_checkpoint(tmp_path, rule, metric, best):
    values = {1: 30.0, 2: 40.0, 3: 20.0, 4: 25.0}
    lines = [validation(epoch, **{metric: value}) for epoch, value in values.items()]
    made.start(tmp_path, [iteration(1, 50), *lines], rule=rule)
    assert read_run(tmp_path, now=at(1)).best == best


@pytest.mark.parametrize(
    ("rule", "metric", "best"),
    [
        ("", "count_MAE", 1),  # an error without a rule
        (", save_best=['count/MAE', 'other'], rule=['less', 'greater']", "count_MAE", 1),
        (", save_best='auto'", "accuracy_top1", 2),
        (", save_best='gone', rule='less'", "count_MAE", 1),
    ],
)
def test_the_best_validation_without_a_plain_rule(tmp_path, rule, metric, best):
    lines = [validation(epoch, **{metric: value}) for epoch, value in ((1, 60.0), (2, 70.0), (3, 65.0))]
    made.start(tmp_path, [iteration(1, 50), *lines], rule=rule)
    assert read_run(tmp_path, now=at(1)).best == best


def test_metrics_that_differ_between_validations_are_compared_where_they_are(tmp_path):
    lines = [validation(1, count_MAE=12.0), validation(2, accuracy_top1=3.0), validation(3, count_MAE=11.0)]
    made.start(tmp_path, [iteration(1, 50), *lines])
    assert read_run(tmp_path, now=at(1)).best == 3


def test_a_record_alone_has_its_validations(tmp_path):
    made.trained(tmp_path / "new", at=0, validations=[{"epoch": 2, "mIoU": 17.0}, {"epoch": 4, "mIoU": 16.0}])
    made.trained(tmp_path / "old", at=0, validation={"accuracy/top1": 57.0})
    new, old = (read_run(tmp_path / name, now=at(1)) for name in ("new", "old"))
    assert new.validations == {2: {"mIoU": 17.0}, 4: {"mIoU": 16.0}}
    assert new.best == 2
    assert old.validations == {4: {"accuracy/top1": 57.0}}


def test_a_killed_process_and_one_that_went_on_are_told_apart(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tasks.cli",
        "train",
        "supernet_resnet20_se_digits",
        "--work-dir",
        tmp_path / "run",
    ]
    command += ["--cfg-options", "train_cfg.max_epochs=5", "default_hooks.logger.interval=3"]
    options = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    process = subprocess.Popen(command, **options, start_new_session=True)
    end = time.monotonic() + 120
    while not (tmp_path / "run" / "epoch_2.pth").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    seen = look(tmp_path / "run")
    assert seen.state.running
    assert (seen.epochs, seen.epoch_length, seen.total) == (5, 16, 80)
    assert seen.elapsed < 120
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    dead = look(tmp_path / "run", now=time.time() + 600)
    assert not dead.state.running
    assert not dead.state.finished
    assert dead.epoch < 5, "killed too late to test anything"

    subprocess.run([*command, "--resume"], check=True, **options)
    seen = look(tmp_path / "run")
    assert seen.state.finished
    assert (seen.epoch, seen.step, seen.total) == (5, 79, 80)
    steps = [line["step"] for line in seen.iterations]
    assert steps == [16 * epoch + step for epoch in range(5) for step in (3, 6, 9, 12, 15)]


# ---------------------------------------------------------------- a search


def test_a_search_says_how_far_it_is_and_what_was_best(tmp_path):
    steps = [[("10-00", 70.0), ("11-00", 68.0)], [("10-00", 70.0), ("10-11", 71.0)]]
    made.searched(tmp_path, steps, until=100.0, evaluations=12, torn='{"step": 2, "sche')
    run = read_run(tmp_path, now=at(103))
    assert isinstance(run, SearchRun)
    assert run.state.running
    assert run.state.usual == 4
    assert (run.strategy, run.done, run.budget, run.history.unique) == ("random", 4, 12, 3)
    assert run.best_rewards == [70.0, 70.0, 70.0, 71.0]
    assert str(run.history.best.scheme) == "10-11"
    assert run.probabilities == [0.6, 0.6]
    assert run.left == 2.0 * 8
    assert run.finalists is None
    assert not read_run(tmp_path, now=at(200)).state.running


def test_finalists_are_counted_and_the_record_ends_it(tmp_path):
    made.searched(tmp_path, [[("10-00", 70.0), ("10-11", 71.0)]], finalists=[("10-11", 72.0)], evaluations=2)
    run = read_run(tmp_path, now=at(1))
    assert run.finalists == (1, 2)
    assert not run.state.finished
    made.found(tmp_path, at=50, evaluations=2)
    assert read_run(tmp_path, now=at(60)).state.finished
    made.found(tmp_path, at=50, evaluations=3)  # of another ledger that was there before
    assert not read_run(tmp_path, now=at(60)).state.finished


def test_a_strategy_that_sets_its_own_budget_is_asked_for_it(tmp_path):
    made.searched(tmp_path, [[("10-00", 70.0)]])
    assert read_run(tmp_path, now=at(1)).budget == 900
    text = (tmp_path / "ledger.jsonl").read_text()
    (tmp_path / "ledger.jsonl").write_text(text.replace('"random"', '"exhaustive"'))
    assert read_run(tmp_path, now=at(1)).budget == 16
    (tmp_path / "ledger.jsonl").write_text(text.replace('"random"', '"one of my own"'))
    assert read_run(tmp_path, now=at(1)).budget is None


def test_a_ledger_without_a_line_is_no_error(tmp_path):
    (tmp_path / "ledger.jsonl").write_text('{"strategy"')
    assert read_run(tmp_path) is None
    assert look(tmp_path) is None


# ---------------------------------------------------------------- several runs


def test_runs_are_found_below_and_listed_newest_news_first(tmp_path):
    made.start(tmp_path / "a" / "seed_0", [iteration(1, 50)], until=10.0)
    made.searched(tmp_path / "b", [[("10-00", 70.0)]], until=30.0)
    made.start(tmp_path / "b" / "training", [iteration(1, 50)])  # a part of the search
    made.start(tmp_path / "c", [iteration(1, 50)], until=20.0)
    (tmp_path / "nothing" / "here").mkdir(parents=True)
    made.record(tmp_path / "tested" / "test.json", at=0, kind="test", metrics={})
    made.start(tmp_path / "tested", None)
    assert [path.relative_to(tmp_path).as_posix() for path in find_runs(tmp_path)] == ["a/seed_0", "b", "c"]
    runs = look(tmp_path, now=at(40))
    assert isinstance(runs, Runs)
    assert (runs.kind, list(runs.parts)) == ("runs", ["b", "c", "a/seed_0"])
    assert [run.folder.name for run in runs.running] == ["b", "c", "seed_0"]
    assert not runs.finished


def test_one_damaged_run_does_not_hide_the_others(tmp_path):
    made.trained(tmp_path / "good", at=0)
    made.searched(tmp_path / "bad", [[("10-00", 70.0)]])
    (tmp_path / "bad" / "ledger.jsonl").write_text("{}\nno ledger\n{}\n")
    runs = look(tmp_path, now=at(1))
    assert runs.parts["good"].state.finished
    assert "line 2, is damaged" in runs.parts["bad"]
    assert not runs.finished
    with pytest.raises(ValueError, match="line 2, is damaged"):
        look(tmp_path / "bad")


@pytest.mark.parametrize("text", ["[1, 2]", '{"kind": "mine"}', '{"environment": {}}', "{", ""])
def test_files_of_others_do_not_hide_runs(tmp_path, text):
    made.start(tmp_path / "good", [iteration(1, 50)])
    (tmp_path / "theirs").mkdir()
    for name in ("theirs/record.json", "compare.json", "timing.json"):
        (tmp_path / name).write_text(text)
    runs = look(tmp_path, now=at(1))
    assert list(runs.parts) == ["good"]
    iterations = {"step": 20, "loss": 1.0, "lr": 0.1, "iter": 20}  # of a library that counts no epochs
    made.start(tmp_path / "theirs/run", [iterations])
    runs = look(tmp_path, now=at(1))
    assert [run.epoch for run in runs.parts.values()] == [1, 0]
    Console(width=100, file=io.StringIO()).print(show(runs, 100))


def test_a_quickstart_is_its_steps_in_order_and_finished_with_the_timing(tmp_path):
    for name in ("vanilla", "supernet"):
        made.trained(tmp_path / name, at=0)
    runs = look(tmp_path, now=at(1))
    assert runs.kind == "quickstart"
    assert list(runs.parts) == ["supernet", "search", "vanilla", "share-full", "ean"]
    assert runs.parts["search"] is None
    assert not runs.finished
    made.record(tmp_path / "timing.json", at=5, kind="timing", networks={"EAN": {"increment": 0.1}})
    assert look(tmp_path).finished


def test_a_comparison_is_finished_with_its_record(tmp_path):
    made.searched(tmp_path / "random" / "seed_0", [[("10-00", 70.0)]])
    made.start(tmp_path / "darts" / "seed_0" / "training", [iteration(1, 50)])
    runs = look(tmp_path, now=at(1))
    assert (runs.kind, runs.finished) == ("comparison", False)
    assert set(runs.parts) == {"random/seed_0", "darts/seed_0/training"}

    whole = look(COMPARISON)
    assert (whole.kind, whole.finished, len(whole.parts)) == ("comparison", True, 23)
    assert list(whole.parts)[:2] == ["exhaustive/seed_0", "local/seed_0"]  # in the order of its record
    assert whole.parts["exhaustive/seed_0"].done == 512


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_runs_is_refused_with_what_was_expected(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{name}.* give the folder of a training, a search.* work_dirs"):
        look(tmp_path / name)

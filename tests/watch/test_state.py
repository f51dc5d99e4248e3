from pathlib import Path

import pytest

from ean_core.watch.state import Several, find_runs, look

from . import made
from .made import BEGAN

COMPARISON = Path(__file__).parents[2] / "benchmarks/results/search_resnet20_se_cifar100/comparison"


def at(seconds):
    return BEGAN + seconds


# ---------------------------------------------------------------- a training


def test_a_running_training_says_where_it_is_and_what_is_left(tmp_path):
    made.training(tmp_path, until=120.0)
    run = look(tmp_path, at(125))
    assert run.running
    assert (run.silence, run.usual, run.done, run.total, run.left) == (5, 25, 150, 200, 20)


def test_without_updates_it_is_not_called_running(tmp_path):
    made.training(tmp_path, until=50.0)
    patience = 60 + 2 * 25
    assert look(tmp_path, at(50 + patience)).running
    run = look(tmp_path, at(51 + patience))
    assert (run.running, run.finished) == (False, False)


def test_its_own_word_ends_it_and_a_new_start_after_its_record_goes_on(tmp_path):
    made.trained(tmp_path, at=100)
    made.training(tmp_path, until=100.0, finished=True)
    run = look(tmp_path, at(160))
    assert run.finished
    assert run.silence == 60
    made.training(tmp_path, until=200.0, epochs=8)
    assert look(tmp_path, at(201)).running


def test_one_from_before_progress_is_finished_by_its_record_or_unknown(tmp_path):
    made.trained(tmp_path / "done", at=0)
    run = look(tmp_path / "done", at(60))
    assert (run.finished, run.silence) == (True, 60)
    (tmp_path / "epoch_2.pth").touch()
    run = look(tmp_path, at(60))
    assert (run.finished, run.running, run.silence) == (False, False, None)


# ---------------------------------------------------------------- a search


def test_a_search_says_how_far_it_is(tmp_path):
    steps = [[("10-00", 70.0), ("11-00", 68.0)], [("10-00", 70.0), ("10-11", 71.0)]]
    made.searched(tmp_path, steps, until=100.0, evaluations=12, torn='{"step": 2, "sche')
    run = look(tmp_path, at(103))
    assert run.running
    assert (run.silence, run.usual, run.done, run.total, run.left) == (3, 4, 4, 12, 16)
    assert not look(tmp_path, at(200)).running


def test_its_record_ends_a_search(tmp_path):
    made.searched(tmp_path, [[("10-00", 70.0), ("10-11", 71.0)]], finalists=[("10-11", 72.0)], evaluations=2)
    assert not look(tmp_path, at(1)).finished
    made.found(tmp_path, at=50, evaluations=2)
    assert look(tmp_path, at(60)).finished
    made.found(tmp_path, at=50, evaluations=3)  # belongs to an earlier ledger
    assert not look(tmp_path, at(60)).finished


def test_a_strategy_that_sets_its_own_budget_is_asked_for_it(tmp_path):
    made.searched(tmp_path, [[("10-00", 70.0)]])
    text = (tmp_path / "ledger.jsonl").read_text()
    for name, budget in (("random", 900), ("exhaustive", 16), ("darts", 1), ("one of my own", None)):
        (tmp_path / "ledger.jsonl").write_text(text.replace('"random"', f'"{name}"'))
        assert look(tmp_path, at(1)).total == budget


def test_a_ledger_without_a_line_is_no_error(tmp_path):
    (tmp_path / "ledger.jsonl").write_text('{"strategy"')
    assert look(tmp_path) == "search started, nothing written yet"


# ---------------------------------------------------------------- several runs


def test_runs_are_found_below_and_listed_latest_update_first(tmp_path):
    made.training(tmp_path / "a" / "seed_0", until=10.0)
    made.searched(tmp_path / "b", [[("10-00", 70.0)]], until=30.0)
    made.training(tmp_path / "b" / "training")  # a part of the search
    made.training(tmp_path / "c", until=20.0)
    (tmp_path / "nothing" / "here").mkdir(parents=True)
    made.record(tmp_path / "tested" / "test.json", at=0, kind="test", metrics={})
    assert [path.relative_to(tmp_path).as_posix() for path in find_runs(tmp_path)] == ["a/seed_0", "b", "c"]
    runs = look(tmp_path, at(40))
    assert isinstance(runs, Several)
    assert (runs.kind, list(runs.parts), runs.finished) == ("runs", ["b", "c", "a/seed_0"], False)
    assert [run.run.folder.name for run in runs.runs] == ["b", "c", "seed_0"]


def test_one_damaged_run_does_not_hide_the_others(tmp_path):
    made.trained(tmp_path / "good", at=0)
    made.searched(tmp_path / "bad", [[("10-00", 70.0)]])
    (tmp_path / "bad" / "ledger.jsonl").write_text("{}\nno ledger\n{}\n")
    runs = look(tmp_path, at(1))
    assert runs.parts["good"].finished
    assert runs.parts["bad"] == "cannot be read"
    assert not runs.finished
    with pytest.raises(ValueError, match="line 2, is damaged"):
        look(tmp_path / "bad")


def test_a_damaged_record_beside_the_progress_does_not_hide_the_other_runs(tmp_path):
    for name in ("good", "bad"):
        made.trained(tmp_path / name, at=0)
    (tmp_path / "bad" / "test.json").write_text('{"metrics": ')
    assert look(tmp_path, at(1)).parts["bad"] == "cannot be read"
    assert look(tmp_path, at(1)).parts["good"].finished


@pytest.mark.parametrize("text", ["[1, 2]", '{"kind": "mine"}', '{"environment": {}}', "{", ""])
def test_files_of_others_do_not_hide_runs(tmp_path, text):
    made.training(tmp_path / "good")
    (tmp_path / "theirs").mkdir()
    for name in ("theirs/record.json", "compare.json", "timing.json"):
        (tmp_path / name).write_text(text)
    assert list(look(tmp_path, at(1)).parts) == ["good"]


def test_a_quickstart_is_its_steps_in_order_and_finished_with_the_timing(tmp_path):
    for name in ("vanilla", "supernet"):
        made.trained(tmp_path / name, at=0)
    runs = look(tmp_path, at(1))
    assert (runs.kind, runs.finished) == ("quickstart", False)
    assert list(runs.parts) == ["supernet", "search", "vanilla", "share-full", "ean"]
    assert runs.parts["search"] == "waiting"
    made.record(tmp_path / "timing.json", at=5, kind="timing", networks={"EAN": {"increment": 0.1}})
    assert look(tmp_path).finished


def test_a_comparison_is_finished_with_its_record(tmp_path):
    made.searched(tmp_path / "random" / "seed_0", [[("10-00", 70.0)]])
    made.training(tmp_path / "darts" / "seed_0" / "training")
    runs = look(tmp_path, at(1))
    assert (runs.kind, runs.finished) == ("comparison", False)
    assert set(runs.parts) == {"random/seed_0", "darts/seed_0/training"}

    whole = look(COMPARISON)
    assert (whole.kind, whole.finished, len(whole.parts)) == ("comparison", True, 23)
    assert list(whole.parts)[:2] == ["exhaustive/seed_0", "local/seed_0"]  # in the record's order
    assert whole.parts["exhaustive/seed_0"].done == 512


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_runs_is_refused_with_what_was_expected(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{name}.* give the folder of a training, a search.* work_dirs"):
        look(tmp_path / name)

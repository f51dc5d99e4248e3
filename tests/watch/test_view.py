import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from ean_core import ConnectionScheme
from ean_core.watch.state import look
from ean_core.watch.view import show

from . import made
from .made import BEGAN, validation

WIDTHS = (60, 80, 100, 160)


def shown(folder, width, seconds=0.0):
    """Lines shown by a terminal of that width; checks that none has to wrap."""
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(show(look(folder, BEGAN + seconds), width))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(cell_len, lines)) <= width
    return lines


def panel(folder, width, seconds=0.0):
    """Text beside each label."""
    found, label = {}, ""
    for line in shown(folder, width, seconds)[1:-1]:
        body = line[2:-2]
        label = body[:13].strip() or label
        found[label] = f"{found.get(label, '')} {body[13:].strip()}".strip()
    return found


@pytest.fixture
def training(tmp_path):
    folder = tmp_path / "runs" / "one"
    validations = [validation(epoch, count_MAE=mae, count_RMSE=2.0 * mae) for epoch, mae in ((1, 20.0), (2, 30.0))]
    rule = ", rule='less', save_best='count/MAE'"
    made.training(folder, rule=rule, model="CrowdCounter", until=75.0, validations=validations)
    return folder


@pytest.mark.parametrize("width", WIDTHS)
def test_a_training(training, width):
    seen = panel(training, width, seconds=80)
    assert seen["config"] == "resnet20_se_digits"
    assert seen["network"] == "ResNet-20, SE 010-100-000, counter, □■□ ■□□ □□□"
    assert seen["state"] == "running, last update 5 s ago"
    assert re.fullmatch(r"━+╸? +75 % epoch 3 of 4 iteration 150 of 200, 32 images/s", seen["progress"])
    assert seen["time"] == "1 min 20 s, about 20 s left"
    assert seen["loss"] == "2.0000  █▅▁"
    assert seen["learning rate"] == "0.1"
    assert seen["validation"] == "epoch 2, MAE 30.00 people, RMSE 60.00 people"
    assert seen["best"] == "epoch 1, MAE 20.00 people, RMSE 40.00 people"


@pytest.mark.parametrize("name", ["[red]a", "[bold]", "a\x1b[31m\x1b]0;t\x07", "a\u202eb\nc"])
def test_names_are_no_markup_and_no_escape_sequences(tmp_path, name):
    folder = tmp_path / "runs"
    for each in (name, "b"):
        made.training(folder / each, until=75.0)
        (folder / each / "resnet20_se_digits.py").rename(folder / each / f"{name}.py")
    for text in (shown(folder, 160), shown(folder / name, 160)):
        text = "\n".join(text)
        assert not set(text) & set("\x1b\x07\u202e")
        assert repr(name)[1:-1] in text
    assert panel(folder / name, 160)["config"] == repr(name)[1:-1]


def test_one_that_counts_iterations_and_has_started_twice(tmp_path):
    validations = [{"iteration": 100, "mIoU": 30.5}]
    made.training(tmp_path, epoch=None, epochs=None, starts=2, validations=validations)
    seen = panel(tmp_path, 80, seconds=5)
    assert seen["progress"].endswith("75 % iteration 150 of 200 32 images/s")
    assert seen["time"] == "5 s since start 2, about 20 s left"
    assert seen["validation"] == "iteration 100, mIoU 30.50 %"
    made.training(tmp_path, epoch=None, epochs=None, iterations=None, seconds_left=None)
    assert panel(tmp_path, 80)["progress"].endswith("iteration 150 of unknown 32 images/s")


def test_one_that_has_just_begun(tmp_path):
    nothing = dict.fromkeys(("loss", "images_per_second", "seconds_left", "usual_interval"))
    made.training(tmp_path, epoch=0, iteration=0, losses=[], **nothing)
    seen = panel(tmp_path, 80, seconds=2)
    assert seen["state"] == "running, last update 2 s ago"
    assert seen["progress"] == "0 % epoch 0 of 4 iteration 0 of 200"
    assert seen["time"] == "2 s"


@pytest.mark.parametrize(
    ("rule", "metric", "best"),
    [
        ("", "accuracy_top1", 2),
        (", rule='less', save_best='count/MAE'", "count_MAE", 1),
        ("", "count_MAE", 1),  # lower is better, without a rule
        (", save_best=['count/MAE', 'other'], rule=['greater', 'less']", "count_MAE", 2),
        (", save_best='auto'", "accuracy_top1", 2),
        (", save_best='gone', rule='less'", "accuracy_top1", 2),
    ],
)
def test_the_best_validation_is_by_the_rule_of_its_checkpoint(tmp_path, rule, metric, best):
    values = ((1, 60.0), (2, 70.0), (3, 65.0))
    made.training(tmp_path, rule=rule, validations=[validation(epoch, **{metric: value}) for epoch, value in values])
    assert panel(tmp_path, 80)["best"].startswith(f"epoch {best}, ")


def test_a_metric_that_is_not_in_every_validation(tmp_path):
    made.training(tmp_path, validations=[validation(1, count_MAE=9.0), validation(2), validation(3, mIoU=3.0)])
    seen = panel(tmp_path, 80)
    assert (seen["validation"], seen["best"]) == ("epoch 3, mIoU 3.00 %", "epoch 1, MAE 9.00 people")


@pytest.mark.parametrize("width", WIDTHS)
def test_silence_is_said_rather_than_judged(training, width):
    assert panel(training, width, seconds=75 + 40)["state"] == "running, last update 40 s ago, usually every 25 s"
    assert panel(training, width, seconds=75 + 720)["state"] == (
        "no update for 12 min, usually every 25 s, stopped or stalled"
    )
    seen = panel(training, width, seconds=75 + 720)
    assert seen["time"] == "1 min 15 s"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_finished_training(training, width):
    made.trained(training, at=100)
    made.training(training, until=100.0, finished=True, iteration=200, epoch=4)
    made.record(training / "test.json", at=101, kind="test", metrics={"count/MAE": 25.5})
    seen = panel(training, width, seconds=100 + 7300)
    assert seen["state"] == "finished 2 h ago"
    assert seen["progress"].endswith("100 % epoch 4 of 4 iteration 200 of 200, 64 images/s")
    assert seen["time"] == "1 min 40 s of training"
    assert seen["test"] == "MAE 25.50 people"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_training_from_before_progress(tmp_path, width):
    made.trained(tmp_path / "done", at=0, validations=[{"epoch": 2, "mIoU": 17.0}, {"epoch": 4, "mIoU": 16.0}])
    seen = panel(tmp_path / "done", width, seconds=60)
    assert seen["state"] == "finished 1 min ago"
    assert seen["progress"].endswith("100 % epoch 4 of 4 64 images/s")
    assert (seen["validation"], seen["best"]) == ("epoch 4, mIoU 16.00 %", "epoch 2, mIoU 17.00 %")

    made.training(tmp_path / "cut")
    (tmp_path / "cut" / "progress.json").rename(tmp_path / "cut" / "epoch_1.pth")
    seen = panel(tmp_path / "cut", width)
    assert seen["state"] == "no progress.json, started before progress was recorded, or without ProgressFileHook"
    assert seen["network"].startswith("ResNet-20, SE 010-100-000, classifier")
    assert seen["checkpoint"] == "epoch_1.pth"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scheme": "full"}, "ResNet-20, SE Share-full, classifier"),
        ({"scheme": "none"}, "ResNet-20, no attention, classifier"),
        ({"scheme": "full", "model": "RelaxedClassifier"}, "ResNet-20, SE, gates of DARTS"),
        ({"rule": "), scheme=dict(type='RandomSchemeHook'", "scheme": "full"}, "ResNet-20, SE, supernet"),
    ],
)
def test_what_is_trained(tmp_path, options, text):
    made.training(tmp_path / "run", **options)
    assert panel(tmp_path / "run", 100)["network"] == text


@pytest.mark.parametrize("width", WIDTHS)
def test_a_search_from_its_first_evaluation_to_its_result(tmp_path, width):
    steps = [[("10-00", 70.0), ("11-00", 68.0)], [("10-00", 70.0), ("10-11", 71.0)]]
    made.searched(tmp_path / "run", steps, evaluations=12)
    seen = panel(tmp_path / "run", width, seconds=3)
    assert seen["search"] == "strategy random, seed 1"
    assert seen["state"] == "running, last update 3 s ago"
    assert re.fullmatch(
        r"━+╸? +33 % of 12 evaluations step 2, 4 evaluations, 3 distinct schemes, about 16 s left", seen["progress"]
    )
    assert seen["best reward"] == "71.00  ▁▁▁█ ■□ ■■, accuracy 71.00 ± 0.50 %, 3 connections"
    assert seen["mean prob."] == "0.600  ▁▁"
    assert not {"found", "finalists"} & seen.keys()

    final = [("10-11", 71.5), ("00-00", 72.0)]
    made.searched(tmp_path / "run", steps, evaluations=12, finalists=final)
    assert panel(tmp_path / "run", width)["finalists"] == (
        "2 of about 2 rescored □□ □□, accuracy 72.00 ± 0.50 %, 0 connections, reward 72.00"
    )
    made.found(tmp_path / "run", at=10, evaluations=4)
    seen = panel(tmp_path / "run", width, seconds=20)
    assert seen["state"] == "finished 10 s ago"
    assert seen["found"] == "■□ ■■, 10-11, accuracy 71.00 ± 0.50 %, 3 connections, reward 71.00, by rule mode"


def test_a_constant_gate_is_a_third_kind_of_square(tmp_path):
    made.training(tmp_path / "run", scheme="0c0-1c0-000")
    text = "\n".join(shown(tmp_path / "run", 100))
    assert "SE 0c0-1c0-000, classifier" in text
    assert "□▣□ ■▣□ □□□" in text


def test_schemes_of_many_blocks_break_between_stages(tmp_path):
    made.training(tmp_path / "run", scheme=str(ConnectionScheme.every((18, 18, 18), 2)))
    lines = shown(tmp_path / "run", 60)
    assert [line.count("■") for line in lines if "■" in line] == [18, 9]


@pytest.mark.parametrize("width", WIDTHS)
def test_several_runs_are_one_line_each(tmp_path, width):
    made.training(tmp_path / "ean_resnet20_se.shanghaitech_b" / "seed_0", until=40.0)
    made.searched(tmp_path / "search_resnet20_se.cifar100" / "seed_0", [[("10-11", 71.0)]], evaluations=12)
    made.trained(tmp_path / "full_resnet20_se.cifar100" / "seed_0", at=-7200, validation={"accuracy/top1": 57.0})
    _, title, header, *rows = shown(tmp_path, width, seconds=50)
    assert title == "3 runs, 2 running, 1 finished"
    assert header.startswith("run, …/seed_0 ")
    assert len(rows) == 3
    assert [re.split(r" {2,}", row)[0][:2] for row in rows] == ["ea", "se", "fu"]
    assert rows[0].endswith("running, 10 s ago" if "progress" in header else "running, epoch 3/4")
    assert "1/12" in rows[1]
    assert "reward 71.00" in rows[1]
    assert "accuracy 57.00 % val" in rows[2]
    assert rows[2].endswith("finished 2 h ago")
    if width >= 100:
        assert "ean_resnet20_se.shanghaitech_b " in rows[0]
        assert "■□ ■■" in rows[1]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_quickstart_shows_the_step_that_runs(tmp_path, width):
    made.trained(tmp_path / "supernet", at=0)
    made.searched(tmp_path / "search", [[("10-11", 71.0)]], evaluations=12)
    lines = shown(tmp_path, width, seconds=2)
    assert lines[1] == "quickstart, 1 of 5 networks and searches finished"
    assert [line.split()[0] for line in lines[3:9]] == ["supernet", "search", "vanilla", "share-full", "ean", "timing"]
    assert sum(line.endswith("waiting") for line in lines) == 4
    assert any("strategy random" in line for line in lines[9:])


def test_what_cannot_be_read_says_so(tmp_path):
    made.trained(tmp_path / "good", at=0)
    made.searched(tmp_path / "bad", [])
    (tmp_path / "bad" / "ledger.jsonl").write_text("{}\nno ledger\n")
    assert any("cannot be read" in line for line in shown(tmp_path, 60))

import json
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from ean_core import ConnectionScheme, EANResNetCIFAR, ImageClassifier
from ean_core.common.errors import InUseError
from ean_core.common.tasks import ACCURACY, Metric
from ean_core.common.writing import LinkError
from ean_core.search import Ledger, SupernetEvaluator, scores
from ean_core.search.evaluator import dismiss, serve
from ean_core.search.ledger import read_lines
from ean_core.search.scorer import Score
from ean_core.search.scores import RememberedScores

STAGES = (2, 3)
ALL = [ConnectionScheme(STAGES, tuple(int(bit) for bit in f"{number:05b}")) for number in range(32)]
KEY = {"weights": "abc", "data": "def", "precision": "fp32"}


class Counting:
    """Scores by a formula and counts the requests."""

    stages = STAGES
    metric = ACCURACY

    def __init__(self, seconds=0.0, **key):
        self.key = {**KEY, **key}
        self.asked = []
        self.seconds = seconds

    def evaluate(self, schemes):
        assert schemes
        assert len(set(schemes)) == len(schemes)
        self.asked += schemes
        time.sleep(self.seconds * len(schemes))
        return [Score(score(scheme), score(scheme) / 100) for scheme in schemes]

    def standard_error(self, score):
        return score / 100


def score(scheme):
    return 50 + sum((i + 1) / 3 * bit for i, bit in enumerate(scheme.bits))


def fork(target, *arguments):
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def lines(path):
    return read_lines(path)[0][1:]


# ---------------------------------------------------------------- what is remembered


def test_scores_are_the_evaluators_in_the_order_asked_for(tmp_path):
    asked = [ALL[9], ALL[3], ALL[9], ALL[0]]
    evaluator = Counting()
    remembered = RememberedScores(evaluator, tmp_path)
    assert remembered.evaluate(asked) == [score(scheme) for scheme in asked]
    assert evaluator.asked == [ALL[9], ALL[3], ALL[0]]
    assert (remembered.stages, remembered.key) == (STAGES, KEY)
    assert remembered.standard_error(70) == 0.7


def test_nothing_is_computed_twice_by_one_or_by_another_with_the_same_key(tmp_path):
    first, second = (RememberedScores(Counting(), tmp_path) for _ in range(2))
    first.evaluate(ALL[:8])
    first.evaluate(ALL[4:10])
    assert first.evaluator.asked == ALL[:10]
    assert second.evaluate(ALL[6:12]) == [score(scheme) for scheme in ALL[6:12]]
    assert second.evaluator.asked == ALL[10:12]
    first.evaluate(ALL[:12])  # what the other one has learned since
    assert first.evaluator.asked == ALL[:10]
    assert [line["scheme"] for line in lines(first.path)] == [str(scheme) for scheme in ALL[:12]]


def test_scores_are_read_back_to_the_last_bit(tmp_path):
    class Thirds(Counting):
        def evaluate(self, schemes):
            return [Score(100 * 1 / 3, 0.25) for _ in schemes]

    assert RememberedScores(Thirds(), tmp_path).evaluate(ALL[:1]) == [100 / 3]
    assert RememberedScores(Counting(), tmp_path).evaluate(ALL[:1]) == [100 / 3]


def test_a_line_says_scheme_accuracy_and_seconds_each_took(tmp_path):
    remembered = RememberedScores(Counting(seconds=0.02), tmp_path)
    remembered.evaluate(ALL[3:5])
    for line, scheme in zip(lines(remembered.path), ALL[3:5], strict=True):
        assert line.keys() == {"scheme", "accuracy", "standard_error", "seconds"}
        assert (line["scheme"], line["accuracy"]) == (str(scheme), score(scheme))
        assert 0.02 <= line["seconds"] < 2


def test_standard_errors_are_remembered_and_those_of_lines_without_one_follow_from_the_score(tmp_path):
    first = RememberedScores(Counting(), tmp_path)
    first.evaluate(ALL[:2])
    whole = first.path.read_text()
    first.path.write_text(re.sub(r'"standard_error": [\d.]+, ', "", whole, count=1))  # as the first versions wrote it
    again = RememberedScores(Counting(), tmp_path)
    again.evaluator.evaluate = None  # computes nothing
    assert [found.standard_error for found in again.evaluate(ALL[:2])] == [score(scheme) / 100 for scheme in ALL[:2]]


def test_scores_of_another_metric_have_its_name(tmp_path):
    evaluator = Counting(metric={"name": "count/MAE"})
    evaluator.metric = Metric("count/MAE", "MAE", "people", less_is_better=True)
    remembered = RememberedScores(evaluator, tmp_path)
    remembered.evaluate(ALL[:1])
    (line,) = lines(remembered.path)
    assert (line["MAE"], line["standard_error"]) == (score(ALL[0]), score(ALL[0]) / 100)
    other = RememberedScores(evaluator, tmp_path)
    assert other.evaluate(ALL[:1]) == [score(ALL[0])]
    assert len(evaluator.asked) == 1


def test_what_is_known_needs_no_file(tmp_path):
    remembered = RememberedScores(Counting(), tmp_path)
    remembered.evaluate(ALL[:4])
    with Ledger(remembered.path, KEY):  # nobody could open it now
        assert remembered.evaluate(ALL[:4]) == [score(scheme) for scheme in ALL[:4]]


@pytest.mark.parametrize("other", [{"weights": "abd"}, {"data": "deg"}, {"precision": "bf16"}, {"calibration": "1000"}])
def test_other_weights_data_or_precision_have_a_file_of_their_own(tmp_path, other):
    first, second = RememberedScores(Counting(), tmp_path), RememberedScores(Counting(**other), tmp_path)
    assert first.path != second.path
    first.evaluate(ALL[:3])
    second.evaluate(ALL[:3])
    assert second.evaluator.asked == ALL[:3]
    assert read_lines(second.path)[0][0] == {**KEY, **other}
    assert RememberedScores(Counting(), tmp_path).path == first.path


def test_the_file_does_not_depend_on_the_order_of_the_key(tmp_path):
    reordered = Counting()
    reordered.key = dict(reversed(KEY.items()))
    assert RememberedScores(reordered, tmp_path).path == RememberedScores(Counting(), tmp_path).path


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "line",
    [
        {"scheme": "10-010"},
        {"accuracy": 70.0},
        {"scheme": "10-0101", "accuracy": 70.0},
        {"scheme": "10-012", "accuracy": 70.0},
        {"scheme": "10-010", "accuracy": "good"},
        {"scheme": "10-010", "accuracy": None},
        {"step": 3},
    ],
    ids=str,
)
def test_a_line_that_is_no_score_is_refused_by_file_and_content(tmp_path, line):
    remembered = RememberedScores(Counting(), tmp_path)
    with Ledger(remembered.path, KEY) as ledger:
        ledger.append({"scheme": "11-111", "accuracy": 61.0}, line)
    before = remembered.path.read_bytes()
    with pytest.raises(ValueError, match=rf"{remembered.path} has a line that is not a score: .*; delete the file"):
        remembered.evaluate(ALL[:1])
    assert remembered.path.read_bytes() == before
    remembered.path.unlink()
    assert RememberedScores(Counting(), tmp_path).evaluate(ALL[:1]) == [score(ALL[0])]


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("damage", [b"{'scheme': 1}", b"\x00\x00", b"[1, 2]", b""])
def test_a_damaged_line_is_refused_by_what_it_holds(tmp_path, damage, number):
    RememberedScores(Counting(), tmp_path).evaluate(ALL[:3])
    remembered = RememberedScores(Counting(), tmp_path)
    content = remembered.path.read_bytes().split(b"\n")
    content[number] = damage
    remembered.path.write_bytes(b"\n".join(content))
    with pytest.raises(ValueError, match=f"{remembered.path} has a line that is not a score") as error:
        remembered.evaluate(ALL[:1])
    assert repr(damage) in str(error.value)
    assert remembered.path.read_bytes() == b"\n".join(content)


@pytest.mark.parametrize("suffix", ["", ".lock"])
def test_a_link_is_not_written_through(tmp_path, suffix):
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    scores = RememberedScores(Counting(), tmp_path / "scores")
    link = Path(f"{scores.path}{suffix}")
    link.parent.mkdir()
    link.symlink_to(victim)
    with pytest.raises(LinkError, match=re.escape(f"{link} is a link")):
        scores.evaluate(ALL[:2])
    assert victim.read_text() == "mine\n"


def test_a_file_of_another_key_is_refused(tmp_path):
    other = RememberedScores(Counting(data="deg"), tmp_path)
    other.evaluate(ALL[:1])
    remembered = RememberedScores(Counting(), tmp_path)
    other.path.rename(remembered.path)
    with pytest.raises(ValueError, match="it belongs to another supernet, data set or precision"):
        remembered.evaluate(ALL[:1])


def test_a_torn_last_line_is_dropped_and_its_scheme_evaluated_again(tmp_path):
    path = RememberedScores(Counting(), tmp_path).path
    RememberedScores(Counting(), tmp_path).evaluate(ALL[:3])
    whole = path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    for size in range(last, len(whole)):
        path.write_bytes(whole[:size])
        said = []
        remembered = RememberedScores(Counting(), tmp_path, said.append)
        assert remembered.evaluate(ALL[:3]) == [score(scheme) for scheme in ALL[:3]]
        assert remembered.evaluator.asked == ALL[2:3]
        assert said == [f"{path}: dropped a torn last line of {size - last} bytes"] * (size > last)
        assert [line["scheme"] for line in lines(path)] == [str(scheme) for scheme in ALL[:3]]


def test_a_file_torn_in_its_key_begins_anew(tmp_path):
    path = RememberedScores(Counting(), tmp_path).path
    path.write_bytes(b'{"weights": "a')
    RememberedScores(Counting(), tmp_path).evaluate(ALL[:2])
    assert read_lines(path)[0][0] == KEY
    remembered = RememberedScores(Counting(), tmp_path)
    remembered.evaluate(ALL[:2])
    assert remembered.evaluator.asked == []


# ---------------------------------------------------------------- several processes


def write_often(folder, schemes):
    remembered = RememberedScores(Counting(seconds=0.001), folder)
    for scheme in schemes:
        assert remembered.evaluate([scheme]) == [score(scheme)]


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    processes = [fork(write_often, tmp_path, ALL[start:] + ALL[:start]) for start in (0, 10, 20)]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    remembered = RememberedScores(Counting(), tmp_path)
    assert remembered.evaluate(ALL) == [score(scheme) for scheme in ALL]
    assert remembered.evaluator.asked == []
    written = lines(remembered.path)
    assert {line["scheme"] for line in written} == {str(scheme) for scheme in ALL}
    assert all(line["accuracy"] == score(ConnectionScheme.parse(line["scheme"])) for line in written)


def hold(path, seconds, ready):
    with Ledger(path, KEY) as ledger:
        ledger.append({"scheme": str(ALL[0]), "accuracy": 12.5})
        ready.put("held")
        time.sleep(seconds)


@pytest.mark.parametrize("killed", [False, True])
def test_one_that_finds_the_file_in_use_waits_for_it(tmp_path, killed):
    remembered = RememberedScores(Counting(), tmp_path)
    ready = multiprocessing.get_context("fork").Queue()
    holder = fork(hold, remembered.path, 60 if killed else 0.5, ready)
    try:
        assert ready.get(timeout=30) == "held"
        if killed:
            os.kill(holder.pid, signal.SIGKILL)
        assert remembered.evaluate(ALL[:2]) == [12.5, score(ALL[1])]
    finally:
        holder.kill()
        holder.join()


def test_its_patience_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "PATIENCE_S", 0.2)
    remembered = RememberedScores(Counting(), tmp_path)
    ready = multiprocessing.get_context("fork").Queue()
    holder = fork(hold, remembered.path, 60, ready)
    try:
        assert ready.get(timeout=30) == "held"
        with pytest.raises(InUseError, match=rf"another process is using {remembered.path}; wait for it, or choose"):
            remembered.evaluate(ALL[:2])
    finally:
        holder.kill()
        holder.join()


def remember_as_first_of_two(rank, folder, answers):
    """A process that scores known schemes, while another process serves."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    images = torch.arange(8 * 64, dtype=torch.uint8).reshape(8, 1, 8, 8)
    data = [{"inputs": images[rank::2], "labels": torch.arange(8)[rank::2] % 3}]
    torch.manual_seed(0)
    model = ImageClassifier(EANResNetCIFAR(20, "SE", scheme="full", in_channels=1, base_channels=4), 3)
    evaluator = SupernetEvaluator(model, data, "data", images=8)
    if rank:
        serve(evaluator)
        return
    full = ConnectionScheme.full((3, 3, 3))
    remembered = RememberedScores(evaluator, folder)
    if not remembered.path.exists():
        with Ledger(remembered.path, evaluator.key) as ledger:
            ledger.append({"scheme": str(full), "accuracy": 50.0})
    found = remembered.evaluate([full]), remembered.standard_error(50.0)
    dismiss()
    answers.put(found)


def test_where_all_is_remembered_the_first_process_needs_no_other(tmp_path):
    answers = multiprocessing.get_context("fork").Queue()
    processes = [fork(remember_as_first_of_two, rank, tmp_path, answers) for rank in (0, 1)]
    try:
        for process in processes:
            process.join(timeout=60)
        assert [process.exitcode for process in processes] == [0, 0]
        assert answers.get(timeout=5) == ([50.0], pytest.approx(100 * (0.25 / 8) ** 0.5))
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_the_file_is_a_ledger_that_says_what_was_scored(tmp_path):
    remembered = RememberedScores(Counting(), tmp_path / "new" / "folder")
    remembered.evaluate(ALL[:1])
    assert remembered.path.parent == tmp_path / "new" / "folder"
    assert remembered.path.name.startswith("scores_")
    assert json.loads(remembered.path.read_text().splitlines()[0]) == KEY

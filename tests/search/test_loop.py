import json
from collections import Counter

import pytest

from ean_core import ConnectionScheme
from ean_core.search import EANStrategy, Evaluation, Reward, Strategy, search

STAGES = (2, 2)
STEPS = 5


class Synthetic:
    """Scores schemes by a sum over their blocks, says what it was asked for, and can be killed at any of them."""

    stages = STAGES

    def __init__(self, fails_at=None, data="synthetic"):
        self.asked = []
        self.fails_at = fails_at
        self.key = {"data": data}

    def evaluate(self, schemes):
        assert schemes
        found = []
        for scheme in schemes:
            if len(self.asked) == self.fails_at:
                raise KeyboardInterrupt
            self.asked.append(str(scheme))
            found.append(60 + sum(w * bit for w, bit in zip((1.1, -0.7, 1 / 3, 0.2), scheme.bits, strict=True)))
        return found


class Listed(Strategy):
    """Asks what it is told to."""

    def __init__(self, steps, result):
        super().__init__(STAGES)
        self.asked = [[ConnectionScheme.parse(text) for text in step] for step in steps]
        self.end = ConnectionScheme.parse(result)
        self.told = []

    @property
    def steps(self):
        return len(self.asked)

    def ask(self):
        return self.asked[len(self.told)] if len(self.told) < self.steps else []

    def tell(self, evaluations):
        self.told.append(list(evaluations))

    def result(self):
        return self.end


def run(path, evaluator=None, seed=1, say=print, **options):
    strategy = EANStrategy(STAGES, seed, steps=STEPS, schemes_per_step=2, replay_from=2)
    return search(strategy, evaluator or Synthetic(), Reward(), path, {"seed": seed}, say, **options)


def lines(path):
    """The ledger without times."""
    read = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nobody interrupts: ledger, result, and the schemes that were evaluated."""
    path, evaluator = tmp_path_factory.mktemp("whole") / "ledger.jsonl", Synthetic()
    result = run(path, evaluator)
    return path, result, evaluator.asked


# ---------------------------------------------------------------- what is written and returned


def test_every_scheme_asked_for_is_a_line_and_evaluated_once(whole):
    path, result, asked = whole
    key, *written = lines(path)
    assert key == {"seed": 1, "reward": {"accuracy": 1.0, "sparsity": 2.0}, "stages": [2, 2], "data": "synthetic"}
    steps = [line for line in written if line["step"] < STEPS]
    assert [line["step"] for line in steps] == [step for step in range(STEPS) for _ in range(2)]
    assert asked == list(dict.fromkeys(line["scheme"] for line in written))
    assert len(set(asked)) < len(steps)  # some came twice
    assert result.evaluations == len(steps)
    assert result.distinct == len({line["scheme"] for line in steps})
    assert all("mean_probability" in line["info"] for line in steps)


def test_accuracy_cost_and_reward_of_a_line_belong_together(whole):
    for line in lines(whole[0])[1:]:
        scheme = ConnectionScheme.parse(line["scheme"])
        assert line["accuracy"] == Synthetic().evaluate([scheme])[0]
        assert line["cost"] == scheme.connections
        assert line["reward"] == line["accuracy"] + 2 * scheme.sparsity


def test_the_strategy_is_told_all_it_asked_for_in_that_order(tmp_path):
    strategy = Listed([["10-00", "11-11", "10-00"], ["00-00", "11-11"]], result="01-01")
    evaluator = Synthetic()
    result = search(strategy, evaluator, Reward(), tmp_path / "ledger.jsonl", {})
    assert evaluator.asked == ["10-00", "11-11", "00-00", "01-01"]
    assert [[str(e.scheme) for e in step] for step in strategy.told] == [
        ["10-00", "11-11", "10-00"],
        ["00-00", "11-11"],
    ]
    expected = Evaluation(ConnectionScheme.parse("10-00"), 61.1, 1, 61.1 + 1.5)
    assert strategy.told[0][0] == strategy.told[0][2] == result.best_seen == expected
    assert (result.evaluations, result.distinct) == (5, 3)


def test_the_result_is_evaluated_if_it_was_not_and_does_not_count_as_seen(tmp_path):
    path = tmp_path / "ledger.jsonl"
    result = search(Listed([["01-00"]], result="10-11"), Synthetic(), Reward(), path, {})
    assert (str(result.scheme.scheme), str(result.best_seen.scheme)) == ("10-11", "01-00")
    assert [(line["step"], line["scheme"]) for line in lines(path)[1:]] == [(0, "01-00"), (1, "10-11")]
    known = tmp_path / "known.jsonl"
    search(Listed([["01-00"]], result="01-00"), Synthetic(), Reward(), known, {})
    assert len(lines(known)) == 2


def test_a_strategy_may_end_early(tmp_path):
    class Short(Listed):
        steps = 10

        def ask(self):
            return self.asked[len(self.told)] if len(self.told) < 2 else []

    result = search(Short([["10-00"], ["11-00"]], "10-00"), Synthetic(), Reward(), tmp_path / "ledger.jsonl", {})
    assert result.evaluations == 2


# ---------------------------------------------------------------- going on


def test_a_search_interrupted_at_any_evaluation_ends_like_one_that_was_not(whole, tmp_path):
    path, result, asked = whole
    for number in range(len(asked)):
        ledger, first = tmp_path / f"{number}.jsonl", Synthetic(fails_at=number)
        with pytest.raises(KeyboardInterrupt):
            run(ledger, first)
        done = {line["scheme"] for line in lines(ledger)[1:]}
        second = Synthetic()
        assert run(ledger, second) == result
        assert lines(ledger) == lines(path)
        assert not done & set(second.asked)
        assert done | set(second.asked) == set(asked)
        for evaluator in (first, second):
            assert max(Counter(evaluator.asked).values(), default=1) == 1


def test_a_search_interrupted_again_and_again_ends_the_same(whole, tmp_path):
    path, result, _ = whole
    ledger = tmp_path / "ledger.jsonl"
    while True:
        try:
            found = run(ledger, Synthetic(fails_at=2))
            break
        except KeyboardInterrupt:
            continue
    assert found == result
    assert lines(ledger) == lines(path)


def test_a_finished_search_is_read_again_without_evaluating(whole, tmp_path):
    path, result, _ = whole
    ledger, evaluator = tmp_path / "ledger.jsonl", Synthetic()
    ledger.write_bytes(path.read_bytes())
    assert run(ledger, evaluator) == result
    assert evaluator.asked == []
    assert ledger.read_bytes() == path.read_bytes()


def test_a_ledger_cut_anywhere_in_its_last_line_is_completed_with_a_notice(whole, tmp_path):
    path, result, _ = whole
    content = path.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    for size in range(start, len(content)):
        ledger, said, evaluator = tmp_path / "ledger.jsonl", [], Synthetic()
        ledger.write_bytes(content[:size])
        assert run(ledger, evaluator, say=said.append) == result
        assert lines(ledger) == lines(path)
        assert [("torn last line" in text, text.startswith(str(ledger))) for text in said] == [(True, True)] * (
            size > start
        )
        assert len(evaluator.asked) <= 1


def test_a_ledger_cut_after_any_line_is_completed(whole, tmp_path):
    path, result, _ = whole
    content = path.read_bytes().splitlines(keepends=True)
    for kept in range(len(content) + 1):
        ledger, evaluator = tmp_path / f"{kept}.jsonl", Synthetic()
        ledger.write_bytes(b"".join(content[:kept]))
        known = {json.loads(line)["scheme"] for line in content[1:kept]}
        assert run(ledger, evaluator) == result
        assert lines(ledger) == lines(path)
        assert not known & set(evaluator.asked)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seed": 2}, "seed is 1 there, 2 here"), ({"evaluator": Synthetic(data="other")}, "data is 'synthetic' there")],
)
def test_the_ledger_of_another_search_is_refused(whole, tmp_path, options, message):
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(whole[0].read_bytes())
    with pytest.raises(ValueError, match=message):
        run(ledger, **options)
    assert ledger.read_bytes() == whole[0].read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda line: {"scheme": str(next(ConnectionScheme.parse(line["scheme"]).neighbours()))},
        lambda line: {"step": line["step"] + 1},
    ],
)
def test_a_ledger_that_another_version_wrote_is_refused(whole, tmp_path, change):
    ledger = tmp_path / "ledger.jsonl"
    key, *written = lines(whole[0])
    written[3] = {**written[3], **change(written[3])}
    ledger.write_text("".join(json.dumps(line) + "\n" for line in [key, *written]))
    before, evaluator = ledger.read_bytes(), Synthetic()
    with pytest.raises(ValueError, match=r"step 1 asked for .*written by another version. Choose another --work-dir"):
        run(ledger, evaluator)
    assert evaluator.asked == []
    assert ledger.read_bytes() == before

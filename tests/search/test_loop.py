import json
import threading
from collections import Counter

import pytest

from ean_core import ConnectionScheme
from ean_core.common.errors import InUseError
from ean_core.common.tasks import ACCURACY, Metric
from ean_core.inference.latency import BlockTimes
from ean_core.search import EANStrategy, Evaluation, Ledger, Reward, Strategy, search
from ean_core.search.front import front
from ean_core.search.loop import best_schemes, rescore, with_extremes
from ean_core.search.scorer import Score

STAGES = (2, 2)
STEPS = 5
NONE, FULL = ConnectionScheme.none(STAGES), ConnectionScheme.full(STAGES)


class Formula:
    """Scores schemes by a sum over their blocks, records the requests, and can be killed at any scheme."""

    stages = STAGES
    metric = ACCURACY
    weights = (1.1, -0.7, 1 / 3, 0.2)

    def __init__(self, fails_at=None, data="formula"):
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
            found.append(60 + sum(w * bit for w, bit in zip(self.weights, scheme.bits, strict=True)))
        return [Score(value, self.standard_error(value)) for value in found]

    def standard_error(self, score):
        return score / 1000


class Careful(Formula):
    """The finalists' formula, by which other schemes are better."""

    weights = (-1.0, 2.5, 0.3, 3.5)

    def __init__(self, fails_at=None, data="careful"):
        super().__init__(fails_at, data)

    def standard_error(self, score):
        return score / 2000


class Listed(Strategy):
    """Asks for given schemes."""

    def __init__(self, steps, mode=None, rule="front"):
        super().__init__(STAGES, evaluations=sum(map(len, steps)))
        self.asked = [[ConnectionScheme.parse(text) for text in step] for step in steps]
        self.found = mode and ConnectionScheme.parse(mode)
        self.rule = rule
        self.told = []

    def ask(self):
        return self.asked[len(self.told)] if len(self.told) < len(self.asked) else []

    def tell(self, evaluations):
        self.told.append(list(evaluations))

    def mode(self):
        return self.found


def run(path, evaluator=None, finalists=None, seed=1, say=print, **options):
    strategy = EANStrategy(STAGES, seed, evaluations=2 * STEPS, schemes_per_step=2, replay_from=2)
    finalists = finalists or Careful()
    return search(
        strategy,
        evaluator or Formula(),
        Reward(),
        path,
        {"seed": seed},
        say,
        finalists=finalists,
        final_count=2,
        **options,
    )


def run_listed(path, steps, **options):
    mode, own_rule = options.pop("mode", None), options.pop("own_rule", "front")
    return search(Listed(steps, mode, own_rule), Formula(), Reward(), path, {}, **options)


def lines(path):
    """The ledger without times."""
    read = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read]


def parse(*texts):
    return [ConnectionScheme.parse(text) for text in texts]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted search: ledger, result, and the schemes requested from each evaluator."""
    path, evaluator, finalists = tmp_path_factory.mktemp("whole") / "ledger.jsonl", Formula(), Careful()
    result = run(path, evaluator, finalists)
    return path, result, evaluator.asked, finalists.asked


# ---------------------------------------------------------------- what is written


def test_the_key_names_strategy_reward_network_and_evaluators(whole):
    assert lines(whole[0])[0] == {
        "seed": 1,
        "reward": {"accuracy": 1.0, "sparsity": 2.0, "latency": 0.0, "table": None},
        "stages": [2, 2],
        "data": "formula",
        "finalists": {"count": 2, "data": "careful"},
    }


def test_every_scheme_asked_for_is_a_line_and_evaluated_once(whole):
    path, result, asked, _ = whole
    steps = [line for line in lines(path)[1:] if isinstance(line["step"], int)]
    assert [line["step"] for line in steps] == [step for step in range(STEPS) for _ in range(2)]
    assert asked[: len(set(asked))] == list(dict.fromkeys([line["scheme"] for line in steps] + asked))
    assert len({line["scheme"] for line in steps}) < len(steps)  # some came twice
    assert [str(evaluation.scheme) for evaluation in result.history] == [line["scheme"] for line in steps]
    assert all("mean_probability" in line["info"] for line in steps)


def test_accuracy_cost_and_reward_of_a_line_belong_together(whole):
    for line in lines(whole[0])[1:]:
        scheme = ConnectionScheme.parse(line["scheme"])
        evaluator = Careful() if line["step"] == "finalists" else Formula()
        assert line["accuracy"] == evaluator.evaluate([scheme])[0]
        assert line["standard_error"] == evaluator.standard_error(line["accuracy"])
        assert line["cost"] == scheme.connections
        assert line["reward"] == line["accuracy"] + 2 * scheme.sparsity


def test_the_finalists_are_the_best_the_mode_and_the_extremes_with_both_accuracies(whole):
    path, result, asked, careful = whole
    final = [line for line in lines(path)[1:] if line["step"] == "finalists"]
    best = best_schemes(result.history, 2)
    mode = result.scheme.scheme  # the rule of this strategy
    expected = list(dict.fromkeys([*best, mode, NONE, FULL]))
    assert [line["scheme"] for line in final] == [str(scheme) for scheme in expected] == careful
    assert [evaluation.scheme for evaluation in result.finalists] == expected
    for line, evaluation in zip(final, result.finalists, strict=True):
        assert [line["supernet_accuracy"]] == Formula().evaluate([evaluation.scheme])
        assert [line["accuracy"]] == Careful().evaluate([evaluation.scheme]) == [evaluation.score]
    assert Counter(asked).most_common(1)[0][1] == 1  # what the search has scored is not scored again for them


def test_the_strategy_is_told_all_it_asked_for_in_that_order(tmp_path):
    strategy = Listed([["10-00", "11-11", "10-00"], ["00-00", "11-11"]], mode="01-01")
    evaluator = Formula()
    result = search(strategy, evaluator, Reward(), tmp_path / "ledger.jsonl", {}, rule="mode")
    assert evaluator.asked == ["10-00", "11-11", "00-00", "01-01"]
    assert [[str(e.scheme) for e in step] for step in strategy.told] == [
        ["10-00", "11-11", "10-00"],
        ["00-00", "11-11"],
    ]
    expected = Evaluation(ConnectionScheme.parse("10-00"), 61.1, 1, 61.1 + 1.5, 0.0611)
    assert strategy.told[0][0] == strategy.told[0][2] == result.best_seen == expected
    assert len(result.history) == 5


def test_without_finalists_the_mode_is_evaluated_if_it_was_not_and_does_not_count_as_seen(tmp_path):
    path = tmp_path / "ledger.jsonl"
    result = run_listed(path, [["01-00"]], mode="10-11", rule="mode")
    assert (str(result.scheme.scheme), str(result.best_seen.scheme)) == ("10-11", "01-00")
    assert result.finalists == ()
    assert [(line["step"], line["scheme"]) for line in lines(path)[1:]] == [(0, "01-00"), ("result", "10-11")]
    assert "supernet_accuracy" not in lines(path)[2]


def test_a_strategy_may_end_early(tmp_path):
    strategy = Listed([["10-00"], ["11-00"]])
    strategy.evaluations = 10
    result = search(strategy, Formula(), Reward(), tmp_path / "ledger.jsonl", {})
    assert len(result.history) == 2


def test_progress_counts_evaluations(tmp_path, capsys):
    run_listed(tmp_path / "ledger.jsonl", [["10-00", "11-11", "10-00"], ["00-00", "11-11"]], finalists=Careful())
    out = capsys.readouterr().out
    assert "search: 5/5, 0 s left, best 62.60" in out
    assert "finalists: 3/3, 0 s left, 11-11 65.30 %" in out


def test_cost_and_reward_are_those_of_latency_where_it_is_weighed(tmp_path):
    times = BlockTimes(STAGES, 0.1, (0.1,) * 4, (0.001, 0.002, 0.003, 0.004), (0.1,) * 4)
    reward = Reward(sparsity=0, latency=2, table=times)
    path = tmp_path / "ledger.jsonl"
    result = search(Listed([["10-01"]]), Formula(), reward, path, {})
    assert result.scheme.cost == pytest.approx(5)
    assert result.scheme.reward == pytest.approx(result.scheme.score + 2 * 0.5)
    assert lines(path)[0]["reward"] == json.loads(json.dumps(reward.plain()))
    with pytest.raises(ValueError, match=r"belongs to another search: reward.latency is 2 there, 0.0 here"):
        search(Listed([["10-01"]]), Formula(), Reward(), path, {})


# ---------------------------------------------------------------- what is returned

STEPS_OF_RULES = [["10-10", "00-01", "01-00"], ["10-00", "00-10"]]


@pytest.mark.parametrize(
    ("rule", "careful", "scheme", "accuracy", "used"),
    [
        ("mode", True, "01-10", 62.8, "mode"),
        ("best-seen", True, "10-00", 59.0, "best-seen"),
        ("front", True, "11-11", 65.3, "front"),
        ("mode", False, "01-10", 60 - 0.7 + 1 / 3, "mode"),
        ("best-seen", False, "10-00", 61.1, "best-seen"),
        ("front", False, "10-00", 61.1, "best-seen"),
    ],
)
def test_each_rule_returns_what_it_says(tmp_path, rule, careful, scheme, accuracy, used):
    """With finalists, accuracies come from their evaluator."""
    for options in ({"rule": rule}, {"own_rule": rule}):
        result = run_listed(
            tmp_path / f"{next(iter(options))}.jsonl",
            STEPS_OF_RULES,
            mode="01-10",
            finalists=Careful() if careful else None,
            final_count=2,
            **options,
        )
        assert (str(result.scheme.scheme), result.rule) == (scheme, used)
        assert result.scheme.score == pytest.approx(accuracy)
        assert (str(result.best_seen.scheme), result.best_seen.score) == ("10-00", pytest.approx(61.1))


def test_the_rule_given_wins_over_the_strategys(tmp_path):
    result = run_listed(tmp_path / "ledger.jsonl", STEPS_OF_RULES, mode="01-10", own_rule="mode", rule="best-seen")
    assert result.rule == "best-seen"


def test_the_front_is_that_of_the_finalists_where_there_are_any(tmp_path):
    with_them = run_listed(tmp_path / "a.jsonl", STEPS_OF_RULES, finalists=Careful())
    without = run_listed(tmp_path / "b.jsonl", STEPS_OF_RULES)
    assert with_them.front == front(with_them.finalists)
    assert without.front == front(without.history)
    assert {evaluation.score for evaluation in with_them.front} != {e.score for e in without.front}


def test_a_rule_that_needs_a_mode_is_refused_without_one_before_anything_is_written(tmp_path):
    for options in ({"rule": "mode"}, {"own_rule": "mode"}):
        with pytest.raises(ValueError, match="Listed has no mode to return; choose rule='best-seen' or 'front'"):
            run_listed(tmp_path / "ledger.jsonl", [["10-00"]], **options)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_rule_is_answered_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"unknown rule 'best'; did you mean 'best-seen'.*'front', 'mode'"):
        run_listed(tmp_path / "ledger.jsonl", [["10-00"]], rule="best")
    assert list(tmp_path.iterdir()) == []


def test_best_schemes_are_different_and_ordered_by_reward_then_scheme():
    rewards = {"10-00": 3.0, "00-01": 5.0, "01-00": 3.0, "11-11": 4.0}
    history = [Evaluation(scheme, 0.0, 0, rewards[str(scheme)]) for scheme in parse(*rewards, *rewards)]
    assert best_schemes(history, 3) == parse("00-01", "11-11", "01-00")
    assert best_schemes(history, 9) == parse("00-01", "11-11", "01-00", "10-00")


def test_extremes_come_last_and_once():
    assert with_extremes(parse("10-00"), STAGES) == parse("10-00", "00-00", "11-11")
    assert with_extremes(parse("11-11", "10-00"), STAGES) == parse("11-11", "10-00", "00-00")
    assert with_extremes([], STAGES) == [NONE, FULL]


# ---------------------------------------------------------------- going on


def test_a_search_interrupted_at_any_evaluation_ends_like_one_that_was_not(whole, tmp_path):
    path, result, asked, careful = whole
    cases = [(number, None) for number in range(len(asked))] + [(None, number) for number in range(len(careful))]
    for case, (plain_at, careful_at) in enumerate(cases):
        ledger, first, second = tmp_path / f"{case}.jsonl", Formula(plain_at), Formula()
        first_careful, second_careful = Careful(careful_at), Careful()
        with pytest.raises(KeyboardInterrupt):
            run(ledger, first, first_careful)
        written = lines(ledger)[1:]
        done = {line["scheme"] for line in written if isinstance(line["step"], int)}
        final = [line["scheme"] for line in written if line["step"] == "finalists"]
        assert run(ledger, second, second_careful) == result
        assert lines(ledger) == lines(path)
        assert not done & set(second.asked)
        assert set(first.asked) | set(second.asked) == set(asked)
        assert final + second_careful.asked == careful
        for evaluator in (first, second, first_careful, second_careful):
            assert max(Counter(evaluator.asked).values(), default=1) == 1


def test_a_search_interrupted_again_and_again_ends_the_same(whole, tmp_path):
    path, result, *_ = whole
    ledger = tmp_path / "ledger.jsonl"
    while True:
        try:
            found = run(ledger, Formula(fails_at=2), Careful(fails_at=1))
            break
        except KeyboardInterrupt:
            continue
    assert found == result
    assert lines(ledger) == lines(path)


def test_a_finished_search_is_read_again_without_evaluating(whole, tmp_path):
    path, result, *_ = whole
    ledger, evaluator, finalists = tmp_path / "ledger.jsonl", Formula(), Careful()
    ledger.write_bytes(path.read_bytes())
    assert run(ledger, evaluator, finalists) == result
    assert evaluator.asked == finalists.asked == []
    assert ledger.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("number", [4, -1])
def test_a_ledger_cut_within_a_last_line_is_completed_with_a_notice(whole, tmp_path, number):
    path, result, *_ = whole
    content = path.read_bytes().splitlines(keepends=True)
    start, length = b"".join(content[:number]), len(content[number])
    for size in (0, 1, length // 2, length - 1, length):
        ledger, said = tmp_path / "ledger.jsonl", []
        evaluator, finalists = Formula(), Careful()
        ledger.write_bytes(start + content[number][:size])
        assert run(ledger, evaluator, finalists, say=said.append) == result
        assert lines(ledger) == lines(path)
        torn = 0 < size < length
        assert [("torn last line" in text, text.startswith(str(ledger))) for text in said] == [(True, True)] * torn
        if number == -1:
            assert (evaluator.asked, len(finalists.asked)) == ([], size < length)


def test_a_ledger_cut_after_any_line_is_completed(whole, tmp_path):
    path, result, *_ = whole
    content = path.read_bytes().splitlines(keepends=True)
    for kept in range(len(content) + 1):
        ledger, evaluator, finalists = tmp_path / f"{kept}.jsonl", Formula(), Careful()
        ledger.write_bytes(b"".join(content[:kept]))
        known = [json.loads(line) for line in content[1:kept]]
        assert run(ledger, evaluator, finalists) == result
        assert lines(ledger) == lines(path)
        assert not {line["scheme"] for line in known} & set(evaluator.asked)
        assert not {line["scheme"] for line in known if line["step"] == "finalists"} & set(finalists.asked)


def test_replayed_steps_take_no_time_in_the_ledger_and_are_not_written_again(whole, tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(ledger, Formula(fails_at=4))
    before = ledger.read_bytes()
    run(ledger)
    assert ledger.read_bytes().startswith(before)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 2}, "seed is 1 there, 2 here"),
        ({"evaluator": Formula(data="other")}, "data is 'formula' there, 'other' here"),
        ({"finalists": Careful(data="other")}, "finalists.data is 'careful' there, 'other' here"),
    ],
)
def test_the_ledger_of_another_search_is_refused(whole, tmp_path, options, message):
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(whole[0].read_bytes())
    with pytest.raises(ValueError, match=message):
        run(ledger, **options)
    assert ledger.read_bytes() == whole[0].read_bytes()


@pytest.mark.parametrize(
    ("number", "step", "change"),
    [
        (3, 1, lambda line: {"scheme": str(next(ConnectionScheme.parse(line["scheme"]).neighbours()))}),
        (3, 1, lambda line: {"step": line["step"] + 1}),
        (3, 1, lambda line: {"accuracy": None}),
        (3, 1, lambda line: {"standard_error": "small"}),
        (-2, "finalists", lambda line: {"step": 5}),
        (-2, "finalists", lambda line: {"scheme": "11-10"}),
        (-2, "finalists", lambda line: {"accuracy": "70"}),
    ],
)
def test_a_ledger_that_another_version_wrote_is_refused(whole, tmp_path, number, step, change):
    ledger = tmp_path / "ledger.jsonl"
    key, *written = lines(whole[0])
    written[number] = {**written[number], **change(written[number])}
    ledger.write_text("".join(json.dumps(line) + "\n" for line in [key, *written]))
    before, evaluator, finalists = ledger.read_bytes(), Formula(), Careful()
    with pytest.raises(
        ValueError, match=rf"step {step} asked for .*written by another version. Choose another --work-dir"
    ):
        run(ledger, evaluator, finalists)
    assert evaluator.asked == finalists.asked == []
    assert ledger.read_bytes() == before


def test_a_second_search_on_a_ledger_is_refused_while_the_first_runs(whole, tmp_path):
    path = tmp_path / "ledger.jsonl"
    reached, go_on = threading.Event(), threading.Event()

    class Slow(Formula):
        def evaluate(self, schemes):
            reached.set()
            assert go_on.wait(60)
            return super().evaluate(schemes)

    found = []
    first = threading.Thread(target=lambda: found.append(run(path, Slow())))
    first.start()
    try:
        assert reached.wait(60)
        second = Formula()
        with pytest.raises(InUseError, match=rf"another search is writing {path}; wait for it, or choose another"):
            run(path, second)
        assert second.asked == []
    finally:
        go_on.set()
        first.join(60)
    assert found == [whole[1]]
    assert lines(path) == lines(whole[0])


# ---------------------------------------------------------------- scoring the best of several searches


def test_rescoring_writes_both_accuracies_and_goes_on_where_it_was_interrupted(tmp_path):
    schemes = parse("10-00", "01-10", "00-00", "11-11")
    path = tmp_path / "finalists.jsonl"
    whole = rescore(schemes, Formula(), Careful(), Reward(), path, {"comparison": ["a", "b"]})
    assert [evaluation.scheme for evaluation in whole] == schemes
    assert [evaluation.score for evaluation in whole] == Careful().evaluate(schemes)
    written = lines(path)
    assert written[0]["comparison"] == ["a", "b"]
    assert written[0]["finalists"] == {"data": "careful"}
    assert [line["supernet_accuracy"] for line in written[1:]] == Formula().evaluate(schemes)
    for number in range(4):
        other, finalists = tmp_path / f"{number}.jsonl", Careful()
        with pytest.raises(KeyboardInterrupt):
            rescore(schemes, Formula(), Careful(fails_at=number), Reward(), other, {"comparison": ["a", "b"]})
        assert rescore(schemes, Formula(), finalists, Reward(), other, {"comparison": ["a", "b"]}) == whole
        assert lines(other) == written
        assert len(finalists.asked) == 4 - number
    with pytest.raises(ValueError, match=r"comparison is \['a', 'b'\] there, \['a'\] here"):
        rescore(schemes, Formula(), Careful(), Reward(), path, {"comparison": ["a"]})


def test_rescoring_says_that_a_torn_line_was_dropped(tmp_path):
    path, said = tmp_path / "finalists.jsonl", []
    rescore(parse("10-00"), Formula(), Careful(), Reward(), path, {})
    with path.open("ab") as file:
        file.write(b'{"step": "fin')
    rescore(parse("10-00"), Formula(), Careful(), Reward(), path, {}, said.append)
    assert len(said) == 1
    assert "dropped a torn last line of 13 bytes" in said[0]
    with Ledger(path, lines(path)[0]) as ledger:
        assert len(ledger.lines) == 1


# ---------------------------------------------------------------- other metrics


class Errors(Formula):
    """The formula as an error: less is better."""

    metric = Metric("count/MAE", "MAE", "people", less_is_better=True)


def test_where_less_is_better_the_least_error_is_the_best(tmp_path):
    steps = [["00-00", "10-00", "01-00"], ["01-10", "11-00"]]
    reward = Reward(metric=Errors.metric, sparsity=0.0)
    result = search(Listed(steps, None, "best-seen"), Errors(), reward, tmp_path / "ledger.jsonl", {})
    assert str(result.best_seen.scheme) == "01-00"  # 60 - 0.7
    assert result.best_seen.text == "MAE 59.30 people"
    assert best_schemes(result.history, 2) == parse("01-00", "01-10")
    assert [str(each.scheme) for each in result.front] == ["00-00", "01-00"]
    key, first, *_ = lines(tmp_path / "ledger.jsonl")
    assert key["reward"] == {"MAE": 1.0, "sparsity": 0.0, "latency": 0.0, "table": None}
    assert first == {
        "step": 0,
        "scheme": "00-00",
        "MAE": 60.0,
        "standard_error": 0.06,
        "cost": 0.0,
        "reward": -60.0,
    }
    again = search(Listed(steps, None, "best-seen"), Errors(fails_at=0), reward, tmp_path / "ledger.jsonl", {})
    assert again == result


def test_a_reward_of_another_metric_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the reward is of accuracy, but schemes are scored by MAE"):
        search(Listed([["00-00"]]), Errors(), Reward(), tmp_path / "ledger.jsonl", {})

import pytest

from ean_core import ConnectionScheme
from ean_core.search.heuristics import HeuristicSelection, RandomSearch


def ask_all(strategy):
    steps = []
    while asked := strategy.ask():
        strategy.tell([])
        steps.append(asked)
    return steps


def flat(steps):
    return [scheme for step in steps for scheme in step]


# ---------------------------------------------------------------- random


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_blocks_are_connected_with_the_probability_given(p):
    schemes = flat(ask_all(RandomSearch((6, 4), seed=3, evaluations=4000, p=p)))
    for block in range(10):
        mean = sum(scheme.bits[block] for scheme in schemes) / len(schemes)
        assert abs(mean - p) <= 5 * (p * (1 - p) / len(schemes)) ** 0.5


def test_schemes_come_in_steps_that_share_prefixes():
    assert [len(step) for step in ask_all(RandomSearch((3, 3), evaluations=150))] == [64, 64, 22]
    assert [len(step) for step in ask_all(RandomSearch((3, 3), evaluations=5, schemes_per_step=2))] == [2, 2, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"p": 1.2}, r"\[0, 1\], got p=1.2"), ({"schemes_per_step": 0}, "at least 1, got 0")],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RandomSearch((3, 3), **options)


# ---------------------------------------------------------------- every N-th block


@pytest.mark.parametrize("stages", [(1,), (2, 3), (3, 3, 3)])
def test_every_period_and_phase_comes_once(stages):
    blocks = sum(stages)
    steps = ask_all(HeuristicSelection(stages))
    asked = flat(steps)
    assert len(asked) == len(set(asked))
    assert set(asked) == {ConnectionScheme.every(stages, n, i) for n in range(1, blocks + 1) for i in range(n)}
    for n, step in enumerate(steps, 1):
        assert set(step) <= {ConnectionScheme.every(stages, n, i) for i in range(n)}
    assert asked[0] == ConnectionScheme.full(stages)


def test_the_schemes_of_table_4_are_the_first():
    strategy = HeuristicSelection((18, 18, 18), evaluations=6)
    assert [str(scheme)[:6] for scheme in flat(ask_all(strategy))] == [
        "111111",
        "101010",
        "010101",
        "100100",
        "010010",
        "001001",
    ]


def test_it_is_cut_to_a_budget_and_has_no_more_than_there_are():
    assert [len(step) for step in ask_all(HeuristicSelection((18, 18, 18), evaluations=12))] == [1, 2, 3, 4, 2]
    assert HeuristicSelection((2, 2), evaluations=900).evaluations == len(flat(ask_all(HeuristicSelection((2, 2)))))
    with pytest.raises(ValueError, match="at least 1 evaluation, got evaluations=0"):
        HeuristicSelection((2, 2), evaluations=0)

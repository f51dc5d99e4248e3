import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ean_core import ConnectionScheme
from ean_core.common.tasks import Metric
from ean_core.search.front import best_by_coefficient, front
from ean_core.search.strategy import Evaluation
from ean_core.search.synthetic import SyntheticEvaluator

STAGES = (2, 3)
ERROR = Metric("count/MAE", "MAE", "people", less_is_better=True)
ALL = [ConnectionScheme(STAGES, tuple(int(bit) for bit in f"{number:05b}")) for number in range(32)]


def evaluated(scheme, accuracy, cost=None):
    return Evaluation(scheme, accuracy, float(scheme.connections) if cost is None else cost, reward=accuracy)


# Few different accuracies and costs, so that many tie.
accuracies = st.integers(0, 8).map(lambda number: 100 * number / 8) | st.floats(0, 100)
evaluations = st.lists(st.builds(evaluated, st.sampled_from(ALL), accuracies), max_size=40)
priced = st.lists(st.builds(evaluated, st.sampled_from(ALL), accuracies, st.integers(0, 4).map(float)), max_size=40)


def dominates(one, other):
    return one.score >= other.score and one.cost <= other.cost and (one.score, one.cost) != (other.score, other.cost)


@given(priced)
def test_the_front_is_what_no_other_dominates(given):
    kept = {(e.score, e.cost) for e in given if not any(dominates(other, e) for other in given)}
    found = front(given)
    assert [(e.score, e.cost) for e in found] == sorted(kept, key=lambda pair: pair[1])
    for evaluation in found:
        same = [e for e in given if (e.score, e.cost) == (evaluation.score, evaluation.cost)]
        assert evaluation == min(same, key=lambda e: (e.scheme.connections, e.scheme))


def turned(evaluation):
    """The same evaluation as an error: of which less is better."""
    return replace(evaluation, score=100 - evaluation.score, metric=ERROR)


@given(priced.filter(bool))
def test_where_less_is_better_the_least_errors_are_kept(given):
    given = [replace(e, score=8 * round(e.score / 8)) for e in given]  # exact differences from 100
    errors = list(map(turned, given))
    assert front(errors) == list(map(turned, front(given)))
    found, expected = best_by_coefficient(errors), best_by_coefficient(given)
    assert found == [(low, high, turned(e)) for low, high, e in expected]


@given(priced, st.randoms())
def test_the_front_does_not_depend_on_order(given, random):
    shuffled = random.sample(given, len(given))
    assert front(shuffled) == front(given)
    assert front(front(given)) == front(given)


@given(evaluations.filter(bool), st.lists(st.integers(0, 400).map(lambda n: n / 2) | st.floats(0, 1e4), min_size=1))
@example([evaluated(ALL[0], 50.0), evaluated(ALL[1], 52.0), evaluated(ALL[3], 54.0)], [10.0])  # on one line
def test_the_best_at_a_coefficient_is_that_of_its_interval(given, coefficients):
    found = best_by_coefficient(given)
    for coefficient in coefficients:
        scores = [e.score + coefficient * e.scheme.sparsity for e in given]
        for low, high, e in found:
            if low <= coefficient <= high:
                assert e.score + coefficient * e.scheme.sparsity == pytest.approx(max(scores), rel=1e-12)


@given(evaluations.filter(bool))
def test_intervals_cover_all_coefficients_with_ever_sparser_schemes(given):
    found = best_by_coefficient(given)
    assert (found[0][0], found[-1][1]) == (0, math.inf)
    for (low, high, one), (start, _, other) in pairwise(found):
        assert low <= high == start
        assert one.scheme.connections > other.scheme.connections
        assert one.score > other.score
    assert found[-1][2].scheme.connections == min(e.scheme.connections for e in given)
    assert found[0][2].score == max(e.score for e in given)


@given(evaluations, st.randoms())
def test_intervals_do_not_depend_on_order(given, random):
    assert best_by_coefficient(random.sample(given, len(given))) == best_by_coefficient(given)


def test_of_schemes_that_always_agree_the_first_stands_for_all():
    one, other, more = (ConnectionScheme.parse(text) for text in ("10-000", "01-000", "11-000"))
    given = [evaluated(scheme, 70.0) for scheme in (more, one, other)]
    assert [str(e.scheme) for e in front(given)] == ["01-000"]
    assert best_by_coefficient(given) == [(0, math.inf, given[2])]


def test_all_schemes_of_a_network_have_few_best_ones():
    formula = SyntheticEvaluator(STAGES, seed=4)
    given = [evaluated(scheme, accuracy) for scheme, accuracy in zip(ALL, formula.evaluate(ALL), strict=True)]
    found = best_by_coefficient(given)
    assert 2 < len(found) <= len(front(given)) <= 6
    assert {e for _, _, e in found} <= set(front(given))


def test_of_nothing_there_is_no_front():
    assert front([]) == []
    assert best_by_coefficient([]) == []

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ean_core import ConnectionScheme
from ean_core.search import Reward, SyntheticEvaluator
from ean_core.search.exhaustive import Exhaustive
from ean_core.search.prefixes import count_bodies


def steps(stages):
    strategy, asked = Exhaustive(stages), []
    while step := strategy.ask():
        strategy.tell([])
        asked.append(step)
    return asked


@pytest.mark.parametrize("stages", [(1,), (2, 1), (3, 3, 3), (13,)])
def test_every_scheme_comes_once_in_the_order_of_its_bits(stages):
    asked = [scheme for step in steps(stages) for scheme in step]
    assert len(asked) == len(set(asked)) == Exhaustive(stages).evaluations == 2 ** sum(stages)
    assert asked == sorted(asked)
    assert (asked[0], asked[-1]) == (ConnectionScheme.none(stages), ConnectionScheme.full(stages))


@pytest.mark.parametrize(
    ("stages", "size", "bodies"),
    [((1,), 2, 1), ((3, 3), 64, 63), ((3, 3, 3), 64, 528), ((4, 4, 4), 64, 4416), ((3, 4, 6, 3), 256, 67_328)],
)
def test_a_step_is_a_subtree_so_that_hardly_a_body_is_computed_twice(stages, size, bodies):
    asked = steps(stages)
    assert {len(step) for step in asked} == {size}
    shared = sum(stages) - (size.bit_length() - 1)
    assert all(len({scheme.bits[:shared] for scheme in step}) == 1 for step in asked)
    assert sum(count_bodies(step) for step in asked) == bodies


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    interaction=st.floats(0, 5),
    coefficients=st.lists(st.floats(-20, 20), min_size=1, max_size=5),
)
def test_it_finds_the_maximum_for_every_coefficient(seed, interaction, coefficients):
    stages = (2, 3, 2)
    evaluator = SyntheticEvaluator(stages, seed, interaction)
    asked = [scheme for step in steps(stages) for scheme in step]
    accuracies = dict(zip(asked, evaluator.evaluate(asked), strict=True))
    for coefficient in coefficients:
        reward = Reward(sparsity=coefficient)
        best = max(reward(scheme, accuracy) for scheme, accuracy in accuracies.items())
        for bits in itertools.product((0, 1), repeat=7):
            scheme = ConnectionScheme(stages, bits)
            assert reward(scheme, evaluator.evaluate([scheme])[0]) <= best + 1e-9


def test_what_is_too_large_is_refused_with_its_size_and_a_way_out():
    assert Exhaustive((10, 10)).evaluations == 2**20
    with pytest.raises(ValueError, match=r"stages \(18, 3\) have 21 blocks, hence 2,097,152 schemes.*'local'"):
        Exhaustive((18, 3))
    with pytest.raises(TypeError, match="evaluations"):
        Exhaustive((3, 3), evaluations=5)

import itertools

import pytest

from ean_core import ConnectionScheme
from ean_core.search import Reward, SyntheticEvaluator
from ean_core.search.local import LocalSearch
from ean_core.search.prefixes import count_bodies


def run(strategy, reward):
    """Steps of a search, each a list of (scheme, reward) pairs."""
    steps = []
    while asked := strategy.ask():
        told = [Reward(sparsity=0).evaluation(scheme, reward(scheme)) for scheme in asked]
        strategy.tell(told)
        steps.append([(evaluation.scheme, evaluation.reward) for evaluation in told])
    return steps


def flat(steps):
    return [pair for step in steps for pair in step]


def landscape(stages, seed, sparsity=0.0):
    evaluator, reward = SyntheticEvaluator(stages, seed), Reward(sparsity=sparsity)
    return lambda scheme: reward(scheme, evaluator.evaluate([scheme])[0])


def distance(one, other):
    return sum(a != b for a, b in zip(one.bits, other.bits, strict=True))


def test_it_finds_the_best_of_512_schemes_within_100_on_most_landscapes():
    found = 0
    for seed in range(20):
        reward = landscape((3, 3, 3), seed, sparsity=4.5)
        best = max(reward(ConnectionScheme((3, 3, 3), bits)) for bits in itertools.product((0, 1), repeat=9))
        found += max(value for _, value in flat(run(LocalSearch((3, 3, 3), seed, evaluations=100), reward))) == best
    assert found >= 18


def test_where_blocks_do_not_interact_one_round_and_one_joint_flip_reach_the_best():
    stages = (18, 18, 18)
    evaluator = SyntheticEvaluator(stages, seed=2, interaction=0.0)
    best = ConnectionScheme(stages, tuple(int(weight > 0) for weight in evaluator.weights))
    steps = run(LocalSearch(stages, evaluations=75), lambda scheme: evaluator.evaluate([scheme])[0])
    assert best in [scheme for scheme, _ in flat(steps)]


@pytest.mark.parametrize("stages", [(1,), (2, 2), (3, 3)])
def test_every_scheme_is_asked_for_once_and_then_it_ends(stages):
    asked = [scheme for scheme, _ in flat(run(LocalSearch(stages, seed=1), landscape(stages, 3)))]
    assert len(asked) == len(set(asked)) == 2 ** sum(stages)


@pytest.mark.parametrize("reward", [lambda scheme: 1.0, lambda scheme: -float(scheme.connections)])
def test_nothing_is_asked_for_twice_on_flat_and_on_steep_ground(reward):
    asked = [scheme for scheme, _ in flat(run(LocalSearch((6, 6), evaluations=400), reward))]
    assert len(asked) == len(set(asked)) == 400


def test_a_step_is_neighbours_of_one_scheme_from_the_last_block_to_the_first():
    strategy = LocalSearch((4, 4), seed=3, schemes_per_step=4)
    first, *flips = strategy.ask()
    assert [distance(first, flip) for flip in flips] == [1, 1, 1]
    assert [next(i for i in range(8) if first.bits[i] != flip.bits[i]) for flip in flips] == [7, 6, 5]


def test_flips_that_improve_are_made_together_and_taken_back_where_that_is_worse():
    stages = (4, 4)
    for penalty, kept in ((0.0, True), (5.0, False)):
        strategy = LocalSearch(stages, seed=3, schemes_per_step=3)
        first, last, before = strategy.ask()

        def reward(scheme, first=first, penalty=penalty):
            flipped = [scheme.bits[i] != first.bits[i] for i in (6, 7)]
            return 1.0 * flipped[0] + 2.0 * flipped[1] - penalty * all(flipped) - 9.0 * (distance(scheme, first) > 2)

        def step(asked, strategy=strategy, reward=reward):
            strategy.tell([Reward(sparsity=0).evaluation(scheme, reward(scheme)) for scheme in asked])

        step([first, last, before])
        joint, *_ = asked = strategy.ask()
        assert (distance(joint, last), distance(joint, before), distance(joint, first)) == (1, 1, 2)
        step(asked)
        assert strategy.incumbent == (joint if kept else last).bits


def test_where_no_flip_improves_the_best_so_far_is_kicked():
    flipped = []
    for seed in range(40):
        strategy = LocalSearch((10, 10), seed, schemes_per_step=21, kick=0.3)
        first, *flips = strategy.ask()
        assert len(flips) == 20
        strategy.tell([Reward(sparsity=0).evaluation(scheme, -distance(scheme, first)) for scheme in (first, *flips)])
        start, *around = strategy.ask()
        assert {distance(start, scheme) for scheme in around} == {1}
        flipped.append(distance(start, first))
    assert min(flipped) > 1
    assert 5 < sum(flipped) / len(flipped) < 7


def test_a_step_shares_prefixes():
    stages = (18, 18, 18)
    steps = run(LocalSearch(stages, evaluations=900), landscape(stages, 0, sparsity=27))
    bodies = sum(count_bodies(scheme for scheme, _ in step) for step in steps)
    assert bodies < 0.65 * 54 * 900


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schemes_per_step": 0}, "schemes_per_step must be at least 1, got 0"),
        ({"kick": 0}, r"must be in \(0, 0.5\], got kick=0"),
        ({"kick": 0.6}, r"must be in \(0, 0.5\], got kick=0.6"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LocalSearch((3, 3), **options)

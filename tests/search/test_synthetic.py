import itertools

import pytest

from ean_core import ConnectionScheme
from ean_core.search import SyntheticEvaluator

STAGES = (2, 3)


def test_accuracy_is_the_sum_of_what_blocks_and_pairs_of_blocks_are_worth():
    evaluator = SyntheticEvaluator(STAGES, seed=4, interaction=2.0, base=60.0)
    schemes = [ConnectionScheme(STAGES, bits) for bits in itertools.product((0, 1), repeat=5)]
    for scheme, accuracy in zip(schemes, evaluator.evaluate(schemes), strict=True):
        blocks = [block for block, bit in enumerate(scheme.bits) if bit]
        worth = sum(evaluator.weights[block] for block in blocks)
        worth += sum(evaluator.pairs[pair] for pair in itertools.combinations(blocks, 2))
        assert accuracy == pytest.approx(60 + worth)


def test_pairs_with_one_block_are_worth_about_as_much_together_as_interaction_says():
    evaluator = SyntheticEvaluator((100, 200), seed=1, interaction=3.0)
    with_one = evaluator.pairs + evaluator.pairs.T
    assert (with_one.sum(1).std(), evaluator.weights.std()) == (pytest.approx(3, rel=0.2), pytest.approx(1, rel=0.2))
    assert not SyntheticEvaluator(STAGES, interaction=0.0).pairs.any()


def test_a_landscape_is_its_key():
    schemes = [ConnectionScheme.full(STAGES), ConnectionScheme.every(STAGES, 2)]
    first = SyntheticEvaluator(STAGES, seed=1)
    assert first.evaluate(schemes) == SyntheticEvaluator(STAGES, seed=1).evaluate(schemes)
    assert first.standard_error(55.0) == 0
    others = [SyntheticEvaluator(STAGES, 2), SyntheticEvaluator(STAGES, 1, 2.0), SyntheticEvaluator(STAGES, 1, 1.0, 60)]
    for other in others:
        assert other.key != first.key
        assert other.evaluate(schemes) != first.evaluate(schemes)


def test_accuracies_do_not_depend_on_what_is_scored_together():
    evaluator = SyntheticEvaluator((18, 18, 18))
    schemes = [ConnectionScheme.every((18, 18, 18), n) for n in (1, 2, 3, 7)]
    one_by_one = [evaluator.evaluate([scheme])[0] for scheme in schemes]
    assert evaluator.evaluate(schemes) == pytest.approx(one_by_one, abs=1e-9)

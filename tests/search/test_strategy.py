import dataclasses

import pytest

from ean_core import ConnectionScheme
from ean_core.search import STRATEGIES, EANStrategy, Evaluation, Reward, Strategy, build_strategy

STAGES = (2, 3)


@pytest.mark.parametrize(
    ("weights", "scheme", "expected"),
    [
        ({}, "00-000", 72.0),
        ({}, "11-111", 70.0),
        ({}, "10-001", 70.0 + 2 * 3 / 5),
        ({"accuracy": 0.5, "sparsity": 10}, "11-100", 35.0 + 10 * 2 / 5),
        ({"accuracy": 0, "sparsity": 1}, "10-000", 0.8),
    ],
)
def test_the_reward_weighs_accuracy_in_percent_and_the_share_of_unconnected_blocks(weights, scheme, expected):
    assert Reward(**weights)(ConnectionScheme.parse(scheme), 70.0) == pytest.approx(expected)


def test_rewards_and_evaluations_are_values():
    assert Reward() == Reward(1.0, 2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Reward().sparsity = 3
    evaluation = Evaluation(ConnectionScheme.full(STAGES), 70.0, 5, 72.0)
    assert hash(evaluation) == hash(Evaluation(ConnectionScheme.full(STAGES), 70.0, 5, 72.0))


def test_a_strategy_is_built_from_a_config():
    config = {"type": "EANStrategy", "steps": 7, "schemes_per_step": 2}
    strategy = build_strategy(config, STAGES, seed=3)
    assert isinstance(strategy, EANStrategy)
    assert (strategy.stages, strategy.seed, strategy.steps) == (STAGES, 3, 7)
    assert [scheme.stages for scheme in strategy.ask()] == [STAGES] * 2
    assert config == {"type": "EANStrategy", "steps": 7, "schemes_per_step": 2}


def test_a_seed_of_its_own_wins_over_that_of_the_run():
    assert build_strategy({"type": "EANStrategy", "seed": 8}, STAGES, seed=3).seed == 8


@pytest.mark.parametrize("name", ["EANStrateg", "Adam", None, 3])
def test_an_unknown_strategy_is_answered_with_those_there_are(name):
    with pytest.raises(ValueError, match=rf"unknown search strategy {name!r}.*'EANStrategy'"):
        build_strategy({"type": name}, STAGES, 0)


def test_a_config_without_a_type_is_refused():
    with pytest.raises(ValueError, match="unknown search strategy None; choose from 'EANStrategy'"):
        build_strategy({"steps": 3}, STAGES, 0)


def test_a_new_strategy_is_one_class_and_one_registration():
    @STRATEGIES.register_module()
    class AlwaysFull(Strategy):
        steps = 1

        def ask(self):
            return [ConnectionScheme.full(self.stages)]

        def tell(self, evaluations):
            self.told = list(evaluations)

        def result(self):
            return ConnectionScheme.full(self.stages)

    try:
        strategy = build_strategy({"type": "AlwaysFull"}, STAGES, 0)
        assert strategy.ask() == [ConnectionScheme.full(STAGES)]
        assert strategy.info() == {}
    finally:
        STRATEGIES.module_dict.pop("AlwaysFull")


def test_a_strategy_that_lacks_a_method_cannot_be_built():
    class Mute(Strategy):
        steps = 1

    with pytest.raises(TypeError, match="abstract"):
        Mute(STAGES)

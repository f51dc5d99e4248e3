import pytest

from ean_core import ConnectionScheme
from ean_core.search import STRATEGIES, EANStrategy, Evaluation, Strategy, build_strategy
from ean_core.search.strategy import RULES, strategy_class

STAGES = (2, 3)


def test_evaluations_are_values():
    evaluation = Evaluation(ConnectionScheme.full(STAGES), 70.0, 5, 72.0)
    assert hash(evaluation) == hash(Evaluation(ConnectionScheme.full(STAGES), 70.0, 5, 72.0))
    assert evaluation.standard_error == 0
    assert evaluation != Evaluation(ConnectionScheme.full(STAGES), 70.0, 5, 72.0, 0.1)


def test_a_strategy_is_built_from_a_config():
    config = {"type": "ean", "evaluations": 7, "schemes_per_step": 2}
    strategy = build_strategy(config, STAGES, seed=3)
    assert isinstance(strategy, EANStrategy)
    assert (strategy.stages, strategy.seed, strategy.evaluations) == (STAGES, 3, 7)
    assert [scheme.stages for scheme in strategy.ask()] == [STAGES] * 2
    assert config == {"type": "ean", "evaluations": 7, "schemes_per_step": 2}


def test_a_seed_of_its_own_wins_over_that_of_the_run():
    assert build_strategy({"type": "ean", "seed": 8}, STAGES, seed=3).seed == 8


@pytest.mark.parametrize("name", ["eann", "Adam", None, 3])
def test_an_unknown_strategy_is_answered_with_those_there_are(name):
    with pytest.raises(ValueError, match=rf"unknown search strategy {name!r}.*'ean'"):
        build_strategy({"type": name}, STAGES, 0)
    with pytest.raises(ValueError, match=rf"unknown search strategy {name!r}.*'ean'"):
        strategy_class(name)


def test_a_config_without_a_type_is_refused():
    with pytest.raises(ValueError, match=r"unknown search strategy None; choose from .*'ean'"):
        build_strategy({"evaluations": 3}, STAGES, 0)


def test_an_option_that_a_strategy_does_not_have_is_named():
    with pytest.raises(ValueError, match=r"unknown option of strategy 'ean' 'steps'; choose from .*'evaluations'"):
        build_strategy({"type": "ean", "steps": 3}, STAGES, 0)
    with pytest.raises(ValueError, match=r"'evaluation'; did you mean 'evaluations'"):
        build_strategy({"type": "ean", "evaluation": 3}, STAGES, 0)


@pytest.mark.parametrize("evaluations", [0, -1])
def test_a_search_of_nothing_is_refused(evaluations):
    with pytest.raises(ValueError, match=rf"at least 1 evaluation, got evaluations={evaluations}"):
        build_strategy({"type": "ean", "evaluations": evaluations}, STAGES, 0)


def test_every_strategy_says_how_its_scheme_is_chosen():
    for name, found in STRATEGIES.module_dict.items():
        assert name == name.lower()
        assert strategy_class(name) is found
        assert found.rule in RULES


def test_a_new_strategy_is_one_class_and_one_registration():
    @STRATEGIES.register_module(name="always-full")
    class AlwaysFull(Strategy):
        def ask(self):
            return [ConnectionScheme.full(self.stages)]

        def tell(self, evaluations):
            self.told = list(evaluations)

    try:
        strategy = build_strategy({"type": "always-full", "evaluations": 1}, STAGES, 0)
        assert strategy.ask() == [ConnectionScheme.full(STAGES)]
        assert strategy.info() == {}
        assert strategy.mode() is None
        assert strategy.rule == "front"
        assert strategy.budgeted
    finally:
        STRATEGIES.module_dict.pop("always-full")


def test_a_strategy_that_lacks_a_method_cannot_be_built():
    class Mute(Strategy):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Mute(STAGES, evaluations=1)

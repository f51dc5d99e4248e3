"""The interface that every registered strategy must satisfy."""

import functools
import importlib.util
import inspect

import pytest
import torch

from ean_core import ConnectionScheme
from ean_core.search import STRATEGIES, Reward, SyntheticEvaluator, build_strategy

EVALUATIONS = 40
NEEDS_OPTUNA = {"ga", "tpe", "optuna"}
NETWORKS = [(1,), (3, 3, 3), (18, 18, 18)]
TOO_LARGE = {("exhaustive", (18, 18, 18))}
STRATEGIES.get("ean")  # imports all strategies

pytestmark = pytest.mark.filterwarnings("error")


def cases():
    """Strategy names combined with stages of networks."""
    for name in sorted(STRATEGIES.module_dict):
        lacking = name in NEEDS_OPTUNA and importlib.util.find_spec("optuna") is None
        for stages in NETWORKS:
            if (name, stages) not in TOO_LARGE:
                marks = pytest.mark.skip(reason="Optuna is not installed") if lacking else ()
                yield pytest.param(name, stages, id=f"{name}-{sum(stages)}", marks=marks)


every_strategy = pytest.mark.parametrize(("name", "stages"), list(cases()))


def build(name, stages, seed=1):
    config = {"type": name, **({"evaluations": EVALUATIONS} if STRATEGIES.get(name).budgeted else {})}
    return build_strategy(config, stages, seed)


def run(strategy):
    """All steps: schemes asked for, evaluations told, and the strategy's info and mode afterwards."""
    evaluator, reward, steps = SyntheticEvaluator(strategy.stages), Reward(), []
    while asked := strategy.ask():
        told = [reward.evaluation(s, a) for s, a in zip(asked, evaluator.evaluate(asked), strict=True)]
        strategy.tell(told)
        steps.append((asked, told, dict(strategy.info()), strategy.mode()))
        assert len(steps) <= max(EVALUATIONS, strategy.evaluations), "it does not end"
    return steps


@functools.cache
def known_run(name, stages):
    return run(build(name, stages))


@every_strategy
def test_it_asks_for_schemes_of_the_network_within_its_budget_and_ends(name, stages):
    strategy = build(name, stages)
    steps = run(strategy)
    asked = [scheme for step in steps for scheme in step[0]]
    assert asked
    assert all(isinstance(scheme, ConnectionScheme) and scheme.stages == stages for scheme in asked)
    assert len(asked) <= strategy.evaluations
    if strategy.budgeted:
        assert strategy.evaluations <= EVALUATIONS
    assert strategy.ask() == []
    for *_, info, mode in steps:
        assert mode is None or mode.stages == stages
        assert all(isinstance(value, float) for value in info.values())


@every_strategy
def test_it_asks_the_same_when_told_the_same_whatever_the_global_generators_say(name, stages):
    steps = known_run(name, stages)
    torch.manual_seed(torch.initial_seed() + 1)
    before = torch.get_rng_state()
    assert run(build(name, stages)) == steps
    assert torch.equal(torch.get_rng_state(), before)


@every_strategy
def test_told_a_past_search_it_goes_on_as_that_did(name, stages):
    strategy = build(name, stages)
    for asked, told, info, mode in known_run(name, stages):
        assert strategy.ask() == asked
        strategy.tell(told)
        assert (dict(strategy.info()), strategy.mode()) == (info, mode)
    assert strategy.ask() == []


@every_strategy
def test_seeds_differ_unless_they_have_no_effect(name, stages):
    if stages == (1,) or name in ("exhaustive", "hsp"):
        pytest.skip("there is nothing to draw")
    other = build(name, stages, seed=2)
    assert [step[0] for step in run(other)] != [step[0] for step in known_run(name, stages)]


@pytest.mark.parametrize("name", sorted(STRATEGIES.module_dict))
def test_it_says_what_it_takes(name):
    strategy = STRATEGIES.get(name)
    parameters = inspect.signature(strategy).parameters
    assert list(parameters)[:2] == ["stages", "seed"]
    assert ("evaluations" in parameters) == strategy.budgeted
    assert strategy.rule in ("mode", "best-seen", "front")


@pytest.mark.parametrize(
    "name", sorted(name for name in STRATEGIES.module_dict if STRATEGIES.get(name).budgeted and name != "hsp")
)
def test_a_budget_is_spent_to_the_last_evaluation_and_none_is_refused(name):
    if name in NEEDS_OPTUNA:
        pytest.importorskip("optuna")
    with pytest.raises(ValueError, match="at least 1 evaluation, got evaluations=0"):
        build_strategy({"type": name, "evaluations": 0}, (3, 3), 0)
    strategy = build_strategy({"type": name, "evaluations": 29}, (18, 18, 18), 0)
    assert sum(len(asked) for asked, *_ in run(strategy)) == 29

import logging
import sys
import warnings

import pytest

from ean_core.search import GeneticAlgorithm, OptunaStrategy, Reward, SyntheticEvaluator, TreeParzen
from ean_core.search.heuristics import RandomSearch

STAGES = (3, 3, 3)


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna")


def tell(strategy, asked, sparsity=0.0):
    accuracies = SyntheticEvaluator(strategy.stages, seed=3).evaluate(asked)
    reward = Reward(sparsity=sparsity)
    told = [reward.evaluation(scheme, accuracy) for scheme, accuracy in zip(asked, accuracies, strict=True)]
    strategy.tell(told)
    return told


def run(strategy):
    told = []
    while asked := strategy.ask():
        told += tell(strategy, asked)
    return told


@pytest.mark.parametrize("strategy", [GeneticAlgorithm, TreeParzen, OptunaStrategy])
def test_without_optuna_one_is_told_what_to_install(monkeypatch, strategy):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "ean-zoo\[search\]"'):
        strategy(STAGES)


def test_a_generation_is_a_step(optuna):
    strategy = GeneticAlgorithm(STAGES, evaluations=50, population=20)
    sizes = []
    while asked := strategy.ask():
        sizes.append(len(asked))
        tell(strategy, asked)
    assert sizes == [20, 20, 10]


def test_the_genetic_algorithm_evolves_accuracy_and_cost_and_knows_no_reward(optuna):
    strategy = GeneticAlgorithm(STAGES, evaluations=20, population=20)
    told = tell(strategy, strategy.ask(), sparsity=1000.0)
    assert [direction.name for direction in strategy.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [trial.values for trial in strategy.study.trials] == [[e.score, e.cost] for e in told]


def test_its_front_advances(optuna):
    told = run(GeneticAlgorithm((18, 18, 18), evaluations=600, population=20))
    first, last = told[:100], told[-100:]
    assert sum(e.cost for e in last) < sum(e.cost for e in first)
    assert max(e.score for e in last) > max(e.score for e in first)


def test_tpe_maximises_the_reward_better_than_chance(optuna):
    stages = (9, 9)
    for seed in (0, 1):
        told = run(TreeParzen(stages, seed, evaluations=150))
        chance = run(RandomSearch(stages, seed, evaluations=150))
        late = [sum(e.reward for e in found[-50:]) / 50 for found in (told, chance)]
        assert late[0] > late[1] + 1


def test_schemes_are_told_apart_by_their_trial(optuna):
    strategy = OptunaStrategy(STAGES, sampler="RandomSampler", schemes_per_step=7)
    told = tell(strategy, strategy.ask())
    for trial, evaluation in zip(strategy.study.trials, told, strict=True):
        assert list(trial.params) == [f"b{block}" for block in range(9)]
        assert (tuple(trial.params.values()), trial.value) == (evaluation.scheme.bits, evaluation.reward)


@pytest.mark.parametrize("sampler", ["QMCSampler", "RandomSampler", "NSGAIIISampler"])
def test_any_sampler_serves(optuna, sampler):
    told = run(OptunaStrategy(STAGES, evaluations=64, sampler=sampler, schemes_per_step=64))
    for block in range(9):
        assert 12 <= sum(e.scheme.bits[block] for e in told) <= 52


def test_options_reach_the_sampler(optuna):
    with pytest.raises(ValueError, match="population_size"):
        GeneticAlgorithm(STAGES, options={"population_size": 1})
    with pytest.raises(TypeError, match="n_startup"):
        OptunaStrategy(STAGES, options={"n_startup": 3})


@pytest.mark.parametrize("name", ["TPESample", "BaseSampler", "GridSampler", "nsgaii"])
def test_an_unknown_sampler_is_answered_with_those_there_are(optuna, name):
    with pytest.raises(ValueError, match=rf"unknown sampler '{name}'.*'NSGAIISampler'.*'QMCSampler'.*'TPESampler'"):
        OptunaStrategy(STAGES, sampler=name)


def test_optuna_is_silent_here_and_only_here(optuna, capfd):
    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(OptunaStrategy(STAGES, evaluations=20, sampler="QMCSampler"))
        run(TreeParzen(STAGES, evaluations=20, options={"group": True}))
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before != logging.ERROR


# ---------------------------------------------------------------- a study that is shared


@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "{}/study.journal"])
def test_searches_that_share_a_study_learn_from_each_other_and_say_they_cannot_be_replayed(optuna, tmp_path, storage):
    storage = storage.format(tmp_path)
    workers = [TreeParzen(STAGES, seed, storage=storage, study_name="ours", evaluations=12) for seed in (0, 1)]
    assert not any(worker.replayable for worker in workers)
    for worker in workers:
        tell(worker, worker.ask())
    assert [len(worker.study.trials) for worker in workers] == [20, 20]
    assert [sum(map(len, run_steps(worker))) for worker in workers] == [2, 2]  # a budget is a worker's own


def run_steps(strategy):
    while asked := strategy.ask():
        tell(strategy, asked)
        yield asked


def test_a_study_in_memory_can_be_replayed(optuna):
    assert TreeParzen(STAGES).replayable
    assert TreeParzen.replayable


def test_the_study_of_another_search_is_refused(optuna, tmp_path):
    storage = f"{tmp_path}/study.journal"
    TreeParzen(STAGES, storage=storage, study_name="ours")
    with pytest.raises(
        ValueError, match=r"study 'ours' in .* belongs to another search, .*\[3, 3, 3\].*\[3, 4\].*study_name"
    ):
        TreeParzen((3, 4), storage=storage, study_name="ours")
    with pytest.raises(ValueError, match=r"'pareto': False.*'pareto': True"):
        GeneticAlgorithm(STAGES, storage=storage, study_name="ours")


@pytest.mark.parametrize("options", [{"storage": "study.journal"}, {"study_name": "ours"}])
def test_a_storage_and_the_name_of_a_study_go_together(options):
    with pytest.raises(ValueError, match=r"storage and study_name must be given together.*for example"):
        TreeParzen(STAGES, **options)

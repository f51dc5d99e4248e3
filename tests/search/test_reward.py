import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ean_core import ConnectionScheme
from ean_core.common.tasks import Metric
from ean_core.inference.latency import BlockTimes
from ean_core.search import Evaluation, Reward

STAGES = (2, 3)
ERROR = Metric("count/MAE", "MAE", "people", less_is_better=True)


def table(connections, stages=STAGES):
    """Block times where only the connections matter."""
    blocks = sum(stages)
    return BlockTimes(stages, 1.0, (0.5,) * blocks, tuple(connections), (0.25,) * blocks, 2.0)


def bits(blocks=5):
    return st.lists(st.integers(0, 1), min_size=blocks, max_size=blocks)


@pytest.mark.parametrize(
    ("weights", "scheme", "expected"),
    [
        ({}, "00-000", 72.0),
        ({}, "11-111", 70.0),
        ({}, "10-001", 70.0 + 2 * 3 / 5),
        ({"score": 0.5, "sparsity": 10}, "11-100", 35.0 + 10 * 2 / 5),
        ({"score": 0, "sparsity": 1}, "10-000", 0.8),
    ],
)
def test_the_reward_weighs_accuracy_in_percent_and_the_share_of_unconnected_blocks(weights, scheme, expected):
    assert Reward(**weights)(ConnectionScheme.parse(scheme), 70.0) == pytest.approx(expected)


def test_less_error_is_more_reward_and_weights_are_named_like_the_metric():
    reward = Reward.of({"MAE": 2.0, "sparsity": 0.5}, None, ERROR)
    scheme = ConnectionScheme.parse("10-001")
    assert reward(scheme, 9.0) == pytest.approx(-18 + 0.5 * 3 / 5)
    assert reward(scheme, 8.0) > reward(scheme, 9.0)
    assert reward.plain() == {"MAE": 2.0, "sparsity": 0.5, "latency": 0.0, "table": None}
    evaluation = reward.evaluation(scheme, 9.0, 1.5)
    assert (evaluation.metric, evaluation.merit, evaluation.text) == (ERROR, -9.0, "MAE 9.00 people")
    assert evaluation.plain()["MAE"] == 9.0
    with pytest.raises(ValueError, match=r"unknown weight of the reward 'accuracy'; choose from .*'MAE'"):
        Reward.of({"accuracy": 1.0}, None, ERROR)


def test_rewards_are_values():
    assert Reward() == Reward(1.0, 2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Reward().sparsity = 3


@given(bits(), st.floats(0, 100), st.floats(1e-6, 1))
def test_where_all_connections_take_equally_long_latency_is_sparsity(chosen, accuracy, seconds):
    scheme = ConnectionScheme(STAGES, tuple(chosen))
    by_sparsity = Reward(sparsity=2.0)(scheme, accuracy)
    by_latency = Reward(sparsity=0.0, latency=2.0, table=table([seconds] * 5))(scheme, accuracy)
    assert by_latency == pytest.approx(by_sparsity)


@given(bits(), st.lists(st.floats(1e-6, 1), min_size=5, max_size=5), st.floats(0, 10), st.floats(0, 10))
def test_latency_is_the_share_of_the_attentions_time_that_is_saved(chosen, seconds, sparsity, latency):
    scheme = ConnectionScheme(STAGES, tuple(chosen))
    reward = Reward(0.5, sparsity, latency, table(seconds))
    saved = sum(t for bit, t in zip(chosen, seconds, strict=True) if not bit) / sum(seconds)
    assert reward(scheme, 60.0) == pytest.approx(30 + sparsity * (5 - sum(chosen)) / 5 + latency * saved, abs=1e-9)


def test_the_cost_is_the_number_of_connections_or_their_milliseconds_where_latency_is_weighed():
    scheme, times = ConnectionScheme.parse("10-011"), table([0.001, 0.002, 0.004, 0.008, 0.016])
    assert Reward().cost(scheme) == 3
    assert isinstance(Reward().cost(scheme), float)
    assert Reward(latency=0, table=times).cost(scheme) == 3
    assert Reward(latency=1, table=times).cost(scheme) == pytest.approx(25)
    assert Reward(latency=1, table=times).cost(ConnectionScheme.none(STAGES)) == 0


def test_an_evaluation_holds_what_the_reward_says_of_a_scheme():
    scheme = ConnectionScheme.parse("10-011")
    reward = Reward(latency=3, table=table([0.01] * 5))
    expected = Evaluation(scheme, 64.0, reward.cost(scheme), reward(scheme, 64.0), 0.7)
    assert reward.evaluation(scheme, 64.0, 0.7) == expected


def test_latency_without_measured_times_is_refused_with_how_to_measure():
    with pytest.raises(ValueError, match=r"latency=2\.0 needs a table of measured times; `ean time --per-block` makes"):
        Reward(latency=2.0)


def test_times_of_another_network_are_refused():
    reward = Reward(latency=1, table=table([1.0] * 6, (3, 3)))
    with pytest.raises(ValueError, match=r"these times are for stages \(3, 3\); '10-011' has stages \(2, 3\)"):
        reward(ConnectionScheme.parse("10-011"), 60.0)

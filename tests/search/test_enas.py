import math

import pytest
import torch

from ean_core import ConnectionScheme
from ean_core.search import Reward
from ean_core.search.enas import HIDDEN_SIZE, START, ENASStrategy

STAGES = (3, 4, 6, 3)


def run(strategy, reward):
    asked_for = []
    while asked := strategy.ask():
        asked_for += asked
        strategy.tell([Reward(sparsity=0).evaluation(scheme, reward(scheme)) for scheme in asked])
    return asked_for


def probability(strategy, scheme):
    """Probability of each of a scheme's choices, deciding block by block."""
    previous, state = torch.tensor([START]), (torch.zeros(1, HIDDEN_SIZE), torch.zeros(1, HIDDEN_SIZE))
    found = []
    with torch.no_grad():
        for bit in scheme.bits:
            logits, state = strategy.controller.step(previous, state)
            found.append(float(logits.softmax(1)[0, bit]))
            previous = torch.tensor([bit])
    return found


def test_the_whole_sequence_and_one_block_after_another_give_the_same_probabilities():
    strategy = ENASStrategy(STAGES, learning_rate=0.1)
    strategy.tell([Reward().evaluation(scheme, float(scheme.bits[0])) for scheme in strategy.ask()])
    for scheme in (ConnectionScheme.every(STAGES, 2), ConnectionScheme.full(STAGES)):
        bits = torch.tensor([scheme.bits])
        with torch.no_grad():
            whole = strategy.controller(torch.cat([torch.tensor([[START]]), bits[:, :-1]], 1)).softmax(2)
        assert whole[0].gather(1, bits.T)[:, 0].tolist() == pytest.approx(probability(strategy, scheme), abs=1e-6)


def test_logits_are_divided_by_the_temperature_and_bounded():
    controller = ENASStrategy(STAGES).controller
    assert max(float(parameter.detach().abs().max()) for parameter in controller.parameters()) <= 0.1
    previous = torch.tensor([[START, 0, 1]])
    with torch.no_grad():
        plain = controller.head(controller.lstm(controller.embedding(previous))[0])
        assert torch.allclose(controller(previous), 2.5 * torch.tanh(plain / 5))
        controller.head.weight.mul_(1e6)
        assert controller(previous).abs().max() == 2.5


def test_schemes_are_drawn_with_the_controllers_probabilities():
    strategy = ENASStrategy((2, 1), seed=2, evaluations=40_000, schemes_per_step=20_000)
    with torch.no_grad():
        strategy.controller.head.weight.mul_(400)  # choices that lean, each by what was chosen before
    asked = strategy.ask()
    for number in range(8):
        scheme = ConnectionScheme.parse(f"{number:03b}", (2, 1))
        p = torch.tensor(probability(strategy, scheme)).prod()
        assert abs(asked.count(scheme) / 20_000 - p) < 5 * (p * (1 - p) / 20_000) ** 0.5 + 1e-9


def test_it_learns_how_many_blocks_to_connect():
    for sign in (1, -1):
        strategy = ENASStrategy(STAGES, seed=1, evaluations=600)
        before = strategy.mode()
        asked = run(strategy, lambda scheme, sign=sign: 70 + sign * scheme.connections)
        assert strategy.mode() == (ConnectionScheme.full(STAGES) if sign > 0 else ConnectionScheme.none(STAGES))
        late = sum(scheme.connections for scheme in asked[-60:]) / 60 / 16
        assert late > 0.7 if sign > 0 else late < 0.3
        assert before.stages == STAGES


def test_the_mode_takes_the_more_probable_choice_at_each_block():
    strategy = ENASStrategy(STAGES, evaluations=300, learning_rate=0.01)
    run(strategy, lambda scheme: 70 + sum(a != b for a, b in zip(scheme.bits, scheme.bits[1:], strict=False)))
    assert min(probability(strategy, strategy.mode())) >= 0.5
    assert 0 < strategy.mode().connections < 16  # alternates, since that is what paid


def test_the_mean_probability_is_that_under_the_controller_that_sampled():
    strategy = ENASStrategy(STAGES, learning_rate=0.1)
    assert strategy.info() == {}
    for _ in range(3):
        asked = strategy.ask()
        expected = torch.tensor([probability(strategy, scheme) for scheme in asked]).mean()
        strategy.tell([Reward().evaluation(scheme, 70.0 + scheme.connections) for scheme in asked])
        assert strategy.info() == {"mean_probability": pytest.approx(float(expected), abs=1e-6)}


def test_rewards_are_compared_with_the_average_of_past_ones():
    strategy = ENASStrategy((2, 2), entropy=0.0, baseline_decay=0.9)
    expected = None
    for reward in (50.0, 60.0, 40.0):
        strategy.tell([Reward(sparsity=0).evaluation(scheme, reward) for scheme in strategy.ask()])
        expected = reward if expected is None else 0.9 * expected + 0.1 * reward
        assert strategy.average == pytest.approx(expected)


def test_entropy_is_part_of_the_reward():
    with_entropy, without = (ENASStrategy((2, 2), entropy=entropy) for entropy in (2.0, 0.0))
    for strategy in (with_entropy, without):
        strategy.tell([Reward(sparsity=0).evaluation(scheme, 50.0) for scheme in strategy.ask()])
    in_nats = (with_entropy.average - without.average) / 2.0
    assert in_nats == pytest.approx(4 * math.log(2), rel=1e-3)  # four choices, nearly even at first


def test_no_step_is_empty():
    with pytest.raises(ValueError, match="schemes_per_step must be at least 1, got 0"):
        ENASStrategy(STAGES, schemes_per_step=0)

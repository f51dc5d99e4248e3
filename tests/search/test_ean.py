import copy
import random
import statistics

import pytest
import torch
from torch.distributions import Bernoulli

from ean_core import ConnectionScheme
from ean_core.search import EANStrategy, Evaluation
from ean_core.search.ean import FAULTS, TEMPERATURE, Memory

STAGES = (3, 4, 6, 3)


def tell(strategy, asked, reward):
    strategy.tell([Evaluation(scheme, 0.0, scheme.connections, reward(scheme)) for scheme in asked])


def linear(stages, seed):
    """An additive reward on top of 70 (typical of accuracies), and the contribution of each block."""
    worth = torch.randn(sum(stages), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lambda scheme: 70 + float(worth @ torch.tensor(scheme.bits, dtype=torch.float64)), worth


def run(strategy, reward):
    asked_for = []
    while asked := strategy.ask():
        asked_for += asked
        tell(strategy, asked, reward)
    return asked_for


def gain(strategy, worth):
    """Gain over the mean of all schemes, as a fraction of the possible gain."""
    mean, best = worth.sum() / 2, worth.clamp(min=0).sum()
    found = worth @ torch.tensor(strategy.mode().bits, dtype=torch.float64)
    return float((found - mean) / (best - mean))


# ---------------------------------------------------------------- as a strategy


def test_it_asks_the_same_when_told_the_same_whatever_the_global_generators_say():
    reward, _ = linear(STAGES, 0)
    runs = []
    for _ in range(2):
        torch.manual_seed(len(runs))
        random.seed(len(runs))
        strategy = EANStrategy(STAGES, seed=5, evaluations=75)
        runs.append((run(strategy, reward), strategy.mode(), strategy.probabilities().tolist()))
    assert runs[0] == runs[1]
    other = EANStrategy(STAGES, seed=6, evaluations=75)
    assert run(other, reward) != runs[0][0]


def test_it_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    run(EANStrategy(STAGES, evaluations=36), linear(STAGES, 0)[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("evaluations", "sizes"), [(20, [5, 5, 5, 5]), (1, [1]), (5, [5]), (12, [5, 5, 2])], ids=str)
def test_it_asks_for_so_many_schemes_and_the_last_step_takes_what_is_left(evaluations, sizes):
    strategy = EANStrategy((2, 3), evaluations=evaluations, schemes_per_step=5)
    assert strategy.evaluations == evaluations
    found = []
    while asked := strategy.ask():
        assert {scheme.stages for scheme in asked} == {(2, 3)}
        found.append(len(asked))
        tell(strategy, asked, lambda scheme: 1.0)
    assert found == sizes
    assert strategy.ask() == []


def test_schemes_are_drawn_with_the_probabilities_that_it_names():
    strategy = EANStrategy((3, 3), seed=2, schemes_per_step=20_000)
    bits = torch.tensor([scheme.bits for scheme in strategy.ask()], dtype=torch.float32)
    expected = strategy.probabilities()
    assert (bits.mean(0) - expected).abs().max() < 5 * 0.5 / 20_000**0.5
    assert len({round(p, 4) for p in expected.tolist()}) == 6


def test_the_probabilities_are_a_pairwise_softmax_with_temperature_5():
    strategy = EANStrategy((3, 3))
    layers = strategy.controller.layers
    with torch.no_grad():
        logits = layers[2](layers[0].bias.clamp(min=0)).view(-1, 2)
        logs = strategy.controller()
    assert TEMPERATURE == 5
    assert torch.allclose(logs.exp().sum(1), torch.ones(6))
    assert torch.allclose(strategy.probabilities(), torch.sigmoid((logits[:, 1] - logits[:, 0]) / 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "moving"}, r"unknown baseline 'moving'.*None, 'moving-average'"),
        ({"evaluations": 0}, r"at least 1 evaluation, got evaluations=0"),
        ({"schemes_per_step": 0}, r"schemes_per_step must be at least 1, got 0"),
        ({"buffer_steps": 0}, r"buffer_steps must be at least 1, got 0"),
        ({"compat": ["clipped"]}, r"unknown compat switch 'clipped'; did you mean 'clipped-replay'\?.*'summed-bonus'"),
        ({"compat": ["summed-bonus", "ppo"]}, r"unknown compat switch 'ppo'; choose from 'clipped-replay'"),
    ],
)
def test_a_wrong_option_is_answered_with_the_valid_ones(options, message):
    with pytest.raises(ValueError, match=message):
        EANStrategy(STAGES, **options)


# ---------------------------------------------------------------- does it learn


def test_it_finds_most_of_what_a_linear_reward_has_to_offer():
    gains = []
    for seed in range(4):
        reward, worth = linear(STAGES, 100 + seed)
        strategy = EANStrategy(STAGES, seed, evaluations=900)
        run(strategy, reward)
        gains.append(gain(strategy, worth))
    assert statistics.mean(gains) > 0.93  # 0.97 and more where this was written
    assert min(gains) > 0.8


def test_eqn_5_to_the_letter_does_not_learn_and_keeps_sampling_new_schemes():
    stages, distinct, gains = (18, 18, 18), {}, {}
    for baseline in ("moving-average", None):
        reward, worth = linear(stages, 100)
        strategy = EANStrategy(stages, 0, evaluations=900, baseline=baseline)
        distinct[baseline] = len(set(run(strategy, reward)))
        gains[baseline] = gain(strategy, worth)
    assert distinct[None] > 1.7 * distinct["moving-average"]
    assert gains[None] < 0.6 < gains["moving-average"]


# ---------------------------------------------------------------- the equations


def eqn_5(controller, bits, weights):
    """Gradients of ``mean_k w_k sum_i log p(a_i)``, for ascent, by another route than the strategy's."""
    logits = controller.layers(torch.zeros(20)).view(-1, 2) / 5
    policy = Bernoulli(logits=logits[:, 1] - logits[:, 0])
    objective = sum(w * policy.log_prob(a).sum() for a, w in zip(bits, weights, strict=True)) / len(bits)
    return torch.autograd.grad(objective, list(controller.parameters()))


@pytest.mark.parametrize("curiosity", [0.0, 1.5])
@pytest.mark.parametrize("baseline", [None, "moving-average"])
def test_a_step_follows_the_gradient_of_eqn_5(baseline, curiosity):
    strategy = EANStrategy((3, 4), seed=1, baseline=baseline, curiosity=curiosity, replay_from=None)
    rewards, average, last = [71.0, 69.5, 70.25], None, 0
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in strategy.controller.parameters()]
    for step in range(1, 4):
        before, bonus = copy.deepcopy(strategy.controller), copy.deepcopy(strategy.bonus)
        asked = strategy.ask()
        strategy.tell([Evaluation(a, 0.0, 0.0, r + step) for a, r in zip(asked, rewards, strict=True)])
        bits = torch.tensor([scheme.bits for scheme in asked], dtype=torch.float32)
        with torch.no_grad():
            surprise = [float(((bonus.target(a) - bonus.predictor(a)) ** 2).sum()) for a in bits]
        total = [r + step + curiosity * s for r, s in zip(rewards, surprise, strict=True)]
        if baseline:
            mean = sum(total) / 3
            average = mean if average is None else 0.95 * average + 0.05 * mean
        ascent = eqn_5(before, bits, [t - (average or 0) for t in total])
        for k, (old, new, g) in enumerate(
            zip(before.parameters(), strategy.controller.parameters(), ascent, strict=True)
        ):
            assert torch.allclose(new.grad, -g, rtol=1e-4, atol=1e-4)
            first, second = moments[k]  # and the update is Adam's with learning rate 0.05
            first, second = 0.9 * first - 0.1 * g, 0.999 * second + 0.001 * g**2
            moments[k] = first, second
            change = -0.05 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            large = g.abs() > 1e-3  # where rounding does not decide the direction
            assert torch.allclose((new - old)[large], change[large], atol=1e-3)
            last += int(large.sum())
    assert last > 100


def remembered_schemes(bits, compat):
    """The schemes of a step ``(K, m)`` as the bonus and the replay see them."""
    if "scrambled-schemes" not in compat:
        return bits
    one_block_after_the_other = [float(scheme[i]) for i in range(bits.shape[1]) for scheme in bits[1:]]
    return torch.cat([bits[:1], torch.tensor(one_block_after_the_other).reshape(len(bits) - 1, -1)])


def eqn_8(controller, memory, compat, weight):
    """Gradients of the replayed objective, for ascent: each block weighted by ``p_theta / p_old``."""
    bits, p_old, advantages = memory
    logits = controller.layers(torch.zeros(20)).view(-1, 2) / 5
    policy = Bernoulli(logits=logits[:, 1] - logits[:, 0])
    logs = [policy.log_prob(a) for a in bits]
    ratios = [(log.exp() / old).detach() for log, old in zip(logs, p_old, strict=True)]

    def surrogate(ratios):
        terms = zip(logs, ratios, advantages, strict=True)
        return sum(weight * float(advantage) * (ratio * log).sum() / len(bits) for log, ratio, advantage in terms)

    objective = surrogate(ratios)
    if "clipped-replay" in compat:
        objective = min(objective, surrogate([ratio.clip(0.9, 1.1) for ratio in ratios]))
    return torch.autograd.grad(objective, list(controller.parameters()))


@pytest.mark.parametrize("curiosity", [0.0, 0.7])
@pytest.mark.parametrize("replay_weight", [0.1, 1.0])
@pytest.mark.parametrize(
    "compat",
    [(), ("scrambled-schemes",), ("summed-bonus",), ("clipped-replay",), FAULTS],
    ids=lambda names: "+".join(names) or "none",
)
@pytest.mark.parametrize("seed", range(2))
def test_a_replayed_step_follows_eqn_8_and_each_fault_changes_what_it_says(seed, compat, replay_weight, curiosity):
    options = {"curiosity": curiosity, "compat": compat, "evaluations": 36}
    replaying = EANStrategy((3, 4), seed, replay_from=3, replay_weight=replay_weight, **options)
    without = EANStrategy((3, 4), seed, replay_from=None, **options)
    reward, _ = linear((3, 4), seed)
    average, past = None, []
    for step in range(1, 5):
        controller, bonus, old = (
            copy.deepcopy(without.controller),
            copy.deepcopy(without.bonus),
            without.probabilities(),
        )
        asked = replaying.ask()
        assert without.ask() == asked
        draws = torch.Generator()
        draws.set_state(replaying.draws.get_state())
        tell(replaying, asked, reward)
        tell(without, asked, reward)
        if step < 4:  # up to step h nothing is replayed
            assert torch.equal(replaying.probabilities(), without.probabilities())
            assert torch.equal(replaying.draws.get_state(), draws.get_state())

        bits = torch.tensor([scheme.bits for scheme in asked], dtype=torch.float32)
        seen = remembered_schemes(bits, compat)
        surprises = [(bonus.target(a) - bonus.predictor(a)).square().sum() for a in seen]
        expected = torch.autograd.grad(sum(surprises) / 3, list(bonus.predictor.parameters()))
        surprises = [each.item() for each in surprises]
        for parameter, g in zip(without.bonus.predictor.parameters(), expected, strict=True):
            assert torch.allclose(parameter.grad, g, rtol=1e-4, atol=1e-5)
        plain = [reward(scheme) for scheme in asked]
        if "summed-bonus" in compat:
            rewards = [r + curiosity * sum(surprises) for r in plain]
        else:
            rewards = [r + curiosity * each for r, each in zip(plain, surprises, strict=True)]
        mean = statistics.fmean(rewards)
        average = mean if average is None else 0.95 * average + 0.05 * mean
        expected = eqn_5(controller, bits, [r - average for r in rewards])  # of what was sampled, whatever is kept
        for parameter, g in zip(without.controller.parameters(), expected, strict=True):
            assert torch.allclose(parameter.grad, -g, rtol=1e-3, atol=1e-4)
        kept = plain if "summed-bonus" in compat else rewards
        past.append((seen, torch.where(bits.bool(), old, 1 - old), kept))

    seen, p_old, kept = past[int(torch.randint(4, (1,), generator=draws))]
    memory = seen, p_old, [r - average for r in kept]
    expected = eqn_8(without.controller, memory, compat, replay_weight)  # theta after Eqn 5 is `without`'s
    for parameter, g in zip(replaying.controller.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, -g, rtol=1e-3, atol=1e-4)
    assert not torch.equal(replaying.probabilities(), without.probabilities())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_makes_a_difference(fault):
    reward, _ = linear((3, 4), 0)
    runs = [EANStrategy((3, 4), 0, evaluations=90, compat=compat) for compat in ((), (fault,))]
    for strategy in runs:
        run(strategy, reward)
    assert not torch.equal(runs[0].probabilities(), runs[1].probabilities())


@pytest.mark.parametrize(("then", "ratio"), [(0.25, None), (1.0, 0.9), (0.5, None)])
@pytest.mark.parametrize("compat", [(), ("clipped-replay",)])
def test_a_ratio_is_raised_by_the_fault_alone_and_bounded_by_none(compat, then, ratio):
    strategy = EANStrategy((3, 4), compat=compat, replay_weight=1.0)
    bits = torch.tensor([[1.0, 0, 0, 1, 1, 0, 1], [0.0, 1, 1, 1, 0, 0, 0]])
    memory = Memory(bits, torch.full((2, 7), then), torch.tensor([1.5, -0.5]))
    strategy.buffer.append(memory)
    before = copy.deepcopy(strategy.controller)
    strategy._replay()
    expected = eqn_8(before, memory, compat, 1.0)
    if compat and ratio:  # every block counts alike, as in Eqn 5
        expected = [ratio * g for g in eqn_5(before, bits, memory.rewards)]
    for parameter, g in zip(strategy.controller.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, -g, rtol=1e-4, atol=1e-6)


def test_of_one_scheme_a_step_the_faults_in_its_order_and_its_sum_leave_no_trace():
    reward, _ = linear((3, 4), 0)
    options = {"evaluations": 9, "schemes_per_step": 1, "replay_from": None}
    right = EANStrategy((3, 4), 0, **options)
    faulty = EANStrategy((3, 4), 0, compat=["scrambled-schemes", "summed-bonus"], **options)
    assert run(right, reward) == run(faulty, reward)
    assert torch.equal(right.probabilities(), faulty.probabilities())


def test_only_so_many_past_steps_are_remembered():
    strategy = EANStrategy((2, 2), evaluations=36, buffer_steps=5)
    run(strategy, lambda scheme: 1.0)
    assert len(strategy.buffer) == 5


def test_the_first_layers_weights_never_change_and_its_biases_do():
    strategy = EANStrategy((3, 3), evaluations=90)
    first = strategy.controller.layers[0]
    weight, bias = first.weight.clone(), first.bias.clone()
    run(strategy, linear((3, 3), 0)[0])
    assert torch.equal(first.weight, weight)
    assert not torch.equal(first.bias, bias)


# ---------------------------------------------------------------- curiosity


def surprise(strategy, scheme):
    with torch.no_grad():
        return float(strategy.bonus(torch.tensor([scheme.bits], dtype=torch.float32)))


def test_the_bonus_falls_for_schemes_that_come_again_and_less_for_others():
    strategy = EANStrategy((4, 4), seed=3, learning_rate=0.01)
    often, other = ConnectionScheme.parse("1010-0011"), ConnectionScheme.parse("0101-1100")
    target = [p.clone() for p in strategy.bonus.target.parameters()]
    seen, unseen = [surprise(strategy, often)], surprise(strategy, other)
    for _ in range(40):
        tell(strategy, [often], lambda scheme: 70.0)
        seen.append(surprise(strategy, often))
    assert seen[-1] < 0.05 * seen[0]
    assert seen[-1] / seen[0] < 0.5 * surprise(strategy, other) / unseen
    assert all(torch.equal(a, b) for a, b in zip(strategy.bonus.target.parameters(), target, strict=True))


def test_each_scheme_has_a_bonus_of_its_own():
    strategy = EANStrategy((4, 4))
    schemes = torch.tensor([[0.0] * 8, [1.0] * 8, [1.0, 0.0] * 4])
    together = strategy.bonus(schemes)
    assert together.shape == (3,)
    assert torch.allclose(together, torch.cat([strategy.bonus(scheme[None]) for scheme in schemes]))
    assert len(set(together.tolist())) == 3


# ---------------------------------------------------------------- what it says of itself


def test_the_mode_is_what_the_controller_finds_more_likely_than_not():
    strategy = EANStrategy((3, 3), evaluations=120)
    run(strategy, linear((3, 3), 1)[0])
    assert strategy.mode().bits == tuple(int(p > 0.5) for p in strategy.probabilities().tolist())


def test_info_is_the_mean_probability_of_what_was_sampled():
    strategy = EANStrategy((3, 3), seed=4)
    assert strategy.info() == {}
    asked, p = strategy.ask(), strategy.probabilities()
    tell(strategy, asked, lambda scheme: 1.0)
    each = [torch.where(torch.tensor(scheme.bits).bool(), p, 1 - p).mean() for scheme in asked]
    assert strategy.info()["mean_probability"] == pytest.approx(float(sum(each) / 3))

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from ean_core.inference import Timing, time_networks
from ean_core.inference.timing import median_interval

INPUTS = torch.zeros(2, 3, 4, 4)


class Lab:
    """A fake clock, and networks that take known times on it and record when they run."""

    def __init__(self):
        self.now = 100.0
        self.calls = []

    def clock(self):
        return self.now

    def network(self, name, seconds):
        times = itertools.cycle(seconds if isinstance(seconds, list) else [seconds])

        def run(inputs):
            assert inputs is INPUTS
            self.calls.append(name)
            self.now += next(times)

        return run


def measure(seconds, **options):
    """Timings of networks that take the seconds given, and the order in which they ran."""
    lab = Lab()
    networks = {name: lab.network(name, each) for name, each in seconds.items()}
    options = {"baseline": next(iter(networks)), "warmup": 0, **options}
    return time_networks(networks, INPUTS, clock=lab.clock, **options), lab.calls


def test_medians_and_increments_are_those_of_the_clock():
    timings, _ = measure({"vanilla": 2.0, "full": 3.0, "ean": 2.5}, rounds=4)
    assert [(t.name, t.median, t.increment) for t in timings.values()] == [
        ("vanilla", 2.0, 0.0),
        ("full", 3.0, 0.5),
        ("ean", 2.5, 0.25),
    ]


def test_an_increment_compares_times_of_one_round_not_of_medians():
    # The machine slows down fourfold, and the increment of each round stays 25 %.
    drift = [1.0, 2.0, 3.0, 4.0]
    timings, _ = measure({"vanilla": drift, "ean": [1.25 * t for t in drift]}, rounds=4)
    assert timings["ean"].seconds == (1.25, 2.5, 3.75, 5.0)
    assert timings["ean"].increments == (0.25,) * 4
    mixed, _ = measure({"vanilla": [1.0, 4.0, 2.0], "ean": [3.0, 4.0, 2.0]}, rounds=3)
    assert mixed["ean"].increments == (2.0, 0.0, 0.0)
    assert mixed["ean"].increment == 0.0
    assert mixed["ean"].median / mixed["vanilla"].median - 1 == 0.5


def test_the_baseline_is_the_network_named():
    timings, _ = measure({"full": 3.0, "vanilla": 2.0}, rounds=2, baseline="vanilla")
    assert timings["full"].increment == 0.5
    assert timings["vanilla"].increments == (0.0, 0.0)


def test_a_faster_network_has_a_negative_increment():
    timings, _ = measure({"vanilla": 2.0, "folded": 1.5}, rounds=2)
    assert timings["folded"].increment == -0.25


def test_quartiles_are_inclusive_and_few_rounds_have_no_interval():
    timing = Timing("ean", (5.0, 1.0, 2.0, 4.0, 3.0), (0.5, 0.1, 0.2, 0.4, 0.3))
    assert (timing.median, timing.increment) == (3.0, 0.3)
    assert timing.to_dict()["quartiles_s"] == (2.0, 4.0)
    assert timing.to_dict() == {
        "median_s": 3.0,
        "quartiles_s": (2.0, 4.0),
        "baseline": "vanilla",
        "increment": 0.3,
        "increment_interval": None,
    }


def test_rounds_interleave_the_networks_in_changing_orders():
    _, calls = measure({"a": 1.0, "b": 1.0, "c": 1.0}, rounds=60)
    orders = ["".join(calls[k : k + 3]) for k in range(0, 180, 3)]
    assert {"".join(sorted(order)) for order in orders} == {"abc"}
    assert len(set(orders)) == 6  # every network comes after every other
    assert measure({"a": 1.0, "b": 1.0, "c": 1.0}, rounds=60)[1] == calls


def test_warm_up_rounds_come_first_and_are_not_counted():
    timings, calls = measure({"a": [9.0, 9.0, 1.0, 2.0, 3.0], "b": [7.0, 7.0, 1.0, 2.0, 3.0]}, rounds=3, warmup=2)
    assert sorted(calls[:4]) == ["a", "a", "b", "b"]
    assert len(calls) == 10
    assert timings["a"].seconds == timings["b"].seconds == (1.0, 2.0, 3.0)


def test_each_network_may_have_a_baseline_of_its_own():
    seconds = {"vanilla": 2.0, "ean": 3.0, "vanilla, folded": 1.0, "ean, folded": 1.1}
    baseline = {name: "vanilla, folded" if "folded" in name else "vanilla" for name in seconds}
    timings, _ = measure(seconds, rounds=2, baseline=baseline)
    assert [t.increment for t in timings.values()] == pytest.approx([0.0, 0.5, 0.0, 0.1])
    assert timings["ean, folded"].baseline == "vanilla, folded"


def test_warm_up_goes_on_until_times_are_stable():
    timings, calls = measure({"a": [9.0, 8.0, 7.0, 6.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]}, rounds=2, warmup=None)
    assert len(calls) == 10 + 2  # the last three of ten, 1 s each, are as long as the three before
    assert timings["a"].seconds == (1.0, 1.0)


def test_warm_up_ends_where_times_never_are_stable():
    _, calls = measure({"a": [float(2**k) for k in range(64)]}, rounds=2, warmup=None)
    assert len(calls) == 30 + 2


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("rounds", [12, 50, 300])
def test_intervals_cover_the_median_as_often_as_they_say(rounds):
    # Times of a shared machine: skewed, with a long tail, around a true increment of 10 %.
    draw = np.random.default_rng(rounds)
    trials = 600
    covered = 0
    for _ in range(trials):
        noise = draw.lognormal(0.0, 0.3, (2, rounds))
        lab_times = iter(np.ravel(noise * [[1.0], [1.1]], order="F"))
        baseline, own = (np.array([next(lab_times) for _ in range(rounds * 2)]).reshape(rounds, 2)).T
        low, high = median_interval(tuple(own / baseline - 1))
        covered += low <= 0.1 <= high
    assert covered / trials >= 0.95 - 3 * (0.95 * 0.05 / trials) ** 0.5


def test_an_interval_narrows_with_rounds_and_excludes_what_is_not_so():
    draw = np.random.default_rng(0)
    few, many = (median_interval(tuple(draw.normal(0.1, 0.05, rounds))) for rounds in (20, 2000))
    assert many[1] - many[0] < 0.25 * (few[1] - few[0])
    assert many[0] > 0.08


def test_the_interval_of_a_clock_is_that_of_its_rounds():
    draw = np.random.default_rng(3)
    own = [float(value) for value in draw.uniform(1.0, 1.4, 40)]
    timings, _ = measure({"vanilla": 1.0, "ean": own}, rounds=40)
    low, high = timings["ean"].increment_interval
    ranked = sorted(value - 1 for value in own)
    assert low == pytest.approx(ranked[13])  # of 40, the 14th and the 27th cover the median with 95 %
    assert high == pytest.approx(ranked[26])
    assert timings["vanilla"].increment_interval == (0.0, 0.0)


def test_networks_run_in_inference_mode():
    seen = []
    network = nn.Conv2d(3, 2, 3)
    network.register_forward_hook(lambda *_: seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled())))
    timings = time_networks({"vanilla": network}, INPUTS, baseline="vanilla", rounds=2, warmup=1)
    assert seen == [(True, False)] * 3
    assert all(seconds > 0 for seconds in timings["vanilla"].seconds)
    assert not torch.is_inference_mode_enabled()


def test_a_missing_baseline_is_answered_with_the_networks_there_are():
    with pytest.raises(ValueError, match="'vanila' is not among the networks: vanilla, full"):
        measure({"vanilla": 1.0, "full": 1.0}, rounds=2, baseline="vanila")


@pytest.mark.parametrize("options", [{"rounds": 1}, {"rounds": 2, "warmup": -1}])
def test_too_few_rounds_are_refused(options):
    with pytest.raises(ValueError, match="needs at least 2 rounds and a non-negative warmup"):
        measure({"vanilla": 1.0}, **options)

"""Inference time, and its increment due to attention (Eqn 9)."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ean_core.common.memory import keep_freed_memory
from ean_core.common.progress import Progress

#: Confidence level of the intervals.
CONFIDENCE = 0.95
#: Warm-up ends when the median of the last WINDOW rounds is within TOLERANCE of the median of the WINDOW rounds before
#: them, or after LONGEST_WARMUP rounds.
WINDOW, TOLERANCE, LONGEST_WARMUP = 3, 0.03, 30


@dataclass(frozen=True)
class Timing:
    """Timing of one network.

    Args:
        name: name of the network.
        seconds: duration of the forward pass in each round, in order.
        increments: ``(t - t_baseline) / t_baseline`` of each round, with the baseline's time in the same round.
        baseline: name of the network that the increments refer to.
    """

    name: str
    seconds: tuple[float, ...]
    increments: tuple[float, ...]
    baseline: str = "vanilla"

    @property
    def median(self) -> float:
        """Median seconds per forward pass."""
        return statistics.median(self.seconds)

    @property
    def increment(self) -> float:
        """Median relative inference time increment (Eqn 9); 0.1 is ten percent."""
        return statistics.median(self.increments)

    @property
    def increment_interval(self) -> tuple[float, float] | None:
        """95 % interval of the increment from paired rounds; None if there are too few."""
        return median_interval(self.increments)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record, with the lower and upper quartile of the times."""
        return {
            "median_s": self.median,
            "quartiles_s": _quartiles(self.seconds),
            "baseline": self.baseline,
            "increment": self.increment,
            "increment_interval": self.increment_interval,
        }


@torch.inference_mode()
def time_networks(
    networks: Mapping[str, Callable[[Tensor], Any]],
    inputs: Tensor,
    *,
    baseline: str | Mapping[str, str],
    rounds: int = 50,
    warmup: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time networks side by side, in one process and in inference mode.

    Each round runs every network once on the same input in a new random order (from a fixed seed), so that machine
    drift and cache contents left by other networks affect all networks equally; increments compare times of the same
    round. Devices are synchronized around each pass. The process keeps freed memory from the first call on
    (:func:`~ean_core.common.memory.keep_freed_memory`), so that times measure computation, not page faults.

    Args:
        networks: networks by name, in evaluation mode and on the device of ``inputs``.
        inputs: ``(N, C, H, W)``.
        baseline: name of the network without attention, or a baseline for each name.
        rounds: number of timed rounds, at least 2.
        warmup: number of untimed rounds before; if None, until times are stable.
        clock: returns seconds; replaced in tests.

    Raises:
        ValueError: if a baseline is not among the networks or there are fewer than 2 rounds.
    """
    names = list(networks)
    baselines = (
        dict.fromkeys(names, baseline) if isinstance(baseline, str) else {name: baseline[name] for name in names}
    )
    for name in baselines.values():
        if name not in networks:
            raise ValueError(f"the baseline {name!r} is not among the networks: {', '.join(networks)}")
    if rounds < 2 or (warmup or 0) < 0:
        raise ValueError(f"needs at least 2 rounds and a non-negative warmup, got rounds={rounds}, warmup={warmup}")

    keep_freed_memory()
    draw = random.Random(0)

    def one_round() -> dict[str, float]:
        times = {}
        for name in draw.sample(names, len(names)):
            synchronize(inputs.device)
            start = clock()
            networks[name](inputs)
            synchronize(inputs.device)
            times[name] = clock() - start
        return times

    with Progress("timing", (LONGEST_WARMUP if warmup is None else warmup) + rounds) as progress:
        totals: list[float] = []
        while len(totals) < (LONGEST_WARMUP if warmup is None else warmup):
            totals.append(sum(one_round().values()))
            progress.advance("warming up")
            if warmup is None and is_stable(totals):
                break
        if warmup is None:
            progress.advance(steps=LONGEST_WARMUP - len(totals))
        measured = []
        for _ in range(rounds):
            measured.append(one_round())
            progress.advance()
    return {
        name: Timing(
            name,
            tuple(times[name] for times in measured),
            tuple(times[name] / times[baselines[name]] - 1 for times in measured),
            baselines[name],
        )
        for name in names
    }


def is_stable(seconds: Sequence[float]) -> bool:
    """Whether times are stable: the last rounds take as long as those before them.

    Examples:
        >>> is_stable([9, 3, 1.5, 1.02, 1, 1.01, 1])
        False
        >>> is_stable([9, 3, 1.5, 1.02, 1, 1.01, 1, 1.01])
        True
    """
    if len(seconds) < 2 * WINDOW:
        return False
    before, last = (statistics.median(part) for part in (seconds[-2 * WINDOW : -WINDOW], seconds[-WINDOW:]))
    return abs(last - before) <= TOLERANCE * before


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A 95 % confidence interval of the median from order statistics: distribution-free and deterministic.

    Returns:
        Its ends; None for fewer than 6 values, where no interval reaches this confidence.

    Examples:
        >>> median_interval([0.1, 0.3, 0.2, 0.4, 0.3, 0.2])
        (0.1, 0.4)
    """
    from scipy.stats import quantile_test  # which takes over a second to import

    low, high = quantile_test(list(values), p=0.5).confidence_interval(CONFIDENCE)
    return None if math.isnan(low) or math.isnan(high) else (float(low), float(high))


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high

"""Inference time, and what attention adds to it (Eqn 9)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ean_core.progress import Progress


@dataclass(frozen=True)
class Timing:
    """Times of one network.

    Args:
        name: of the network.
        seconds: of each round's forward pass, first round first.
        increments: of each round, ``(t - t_baseline) / t_baseline`` with the baseline's time of the same round.
    """

    name: str
    seconds: tuple[float, ...]
    increments: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds a forward pass."""
        return statistics.median(self.seconds)

    @property
    def increment(self) -> float:
        """Median relative inference time increment (Eqn 9); 0.1 is ten percent."""
        return statistics.median(self.increments)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a record; between its quartiles lies the middle half of a sample."""
        return {
            "median_s": self.median,
            "quartiles_s": _quartiles(self.seconds),
            "increment": self.increment,
            "increment_quartiles": _quartiles(self.increments),
        }


@torch.inference_mode()
def time_networks(
    networks: Mapping[str, Callable[[Tensor], Any]],
    inputs: Tensor,
    *,
    baseline: str,
    rounds: int = 50,
    warmup: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time networks side by side, in one process and in inference mode.

    Each round runs every network once on the same input, each round starting with the next one, so that drifts of the
    machine fall on all alike; increments compare times of the same round. Devices are synchronised around each pass.

    Args:
        networks: by name, in evaluation mode, on the device of ``inputs``.
        inputs: ``(N, C, H, W)``.
        baseline: the name of the network without attention.
        rounds: at least 2.
        warmup: rounds that are run first and not counted.
        clock: seconds; replaced in tests.

    Raises:
        ValueError: if ``baseline`` is no network's name or there are fewer than 2 rounds.
    """
    if baseline not in networks:
        raise ValueError(f"the baseline {baseline!r} is not among the networks: {', '.join(networks)}")
    if rounds < 2 or warmup < 0:
        raise ValueError(f"needs at least 2 rounds and no negative warm-up, got rounds={rounds}, warmup={warmup}")
    names = list(networks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with Progress("timing", warmup + rounds) as progress:
        for turn in range(-warmup, rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                synchronize(inputs.device)
                start = clock()
                networks[name](inputs)
                synchronize(inputs.device)
                elapsed = clock() - start
                if turn >= 0:
                    seconds[name].append(elapsed)
            progress.advance()
    return {
        name: Timing(
            name,
            tuple(seconds[name]),
            tuple(own / base - 1 for own, base in zip(seconds[name], seconds[baseline], strict=True)),
        )
        for name in names
    }


def synchronize(device: torch.device) -> None:
    """Wait for what a device has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high

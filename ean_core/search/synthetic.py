"""Synthetic accuracies, to compare strategies on more schemes than any supernet could score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ean_core.common.tasks import ACCURACY, Metric
from ean_core.scheme import ConnectionScheme

from .scorer import Score


class SyntheticEvaluator:
    """Accuracy as a sum of the effects of blocks and of pairs of blocks: ``base + w . a + a . J a``.

    Args:
        stages: blocks in each stage.
        seed: seed of weights and interactions.
        interaction: standard deviation of the total effect of all pairs with a given block; that of the weights is 1.
        base: accuracy of the vanilla network.

    Examples:
        >>> evaluator = SyntheticEvaluator((2, 2), seed=0)
        >>> evaluator.evaluate([ConnectionScheme.none((2, 2))])
        [50.0]
    """

    def __init__(self, stages: Sequence[int], seed: int = 0, interaction: float = 1.0, base: float = 50.0) -> None:
        self.stages = tuple(stages)
        self.seed = seed
        self.interaction = interaction
        self.base = base
        blocks = sum(self.stages)
        draws = np.random.default_rng(seed)
        self.weights = draws.normal(size=blocks)
        self.pairs = np.triu(draws.normal(scale=interaction / np.sqrt(blocks), size=(blocks, blocks)), 1)

    @property
    def key(self) -> Mapping[str, Any]:
        return {"synthetic": [list(self.stages), self.seed, self.interaction, self.base]}

    @property
    def metric(self) -> Metric:
        return ACCURACY

    def evaluate(self, schemes: Sequence[ConnectionScheme]) -> list[Score]:
        """Accuracies in percent, in the order of ``schemes``; they are exact."""
        bits = np.array([scheme.bits for scheme in schemes], dtype=float)  # (K, m)
        gains = bits @ self.weights + ((bits @ self.pairs) * bits).sum(1)
        return [Score(value) for value in self.base + gains]

    def standard_error(self, score: float) -> float:
        """Zero, as the accuracies are exact."""
        return 0.0

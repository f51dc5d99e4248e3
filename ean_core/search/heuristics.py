"""Baseline strategies that do not learn: random search and the heuristic selection policy."""

from __future__ import annotations

from collections.abc import Sequence

from ean_core.common.seeding import Stream, generator
from ean_core.scheme import ConnectionScheme

from .strategy import STRATEGIES, Evaluation, Strategy


@STRATEGIES.register_module(name="random")
class RandomSearch(Strategy):
    """Draws each block of each scheme independently, as in supernet training (Algorithm 1, line 3).

    Args:
        stages: blocks in each stage.
        seed: seed of the draws.
        evaluations: total number of evaluations, including repeated schemes.
        p: probability of a connection.
        schemes_per_step: schemes scored together; larger steps share more prefixes.

    Raises:
        ValueError: if an option is out of range.
    """

    def __init__(
        self,
        stages: Sequence[int],
        seed: int = 0,
        *,
        evaluations: int = 900,
        p: float = 0.5,
        schemes_per_step: int = 64,
    ) -> None:
        super().__init__(stages, seed, evaluations=evaluations)
        if not 0 <= p <= 1:
            raise ValueError(f"the probability of a connection must be in [0, 1], got p={p}")
        if schemes_per_step < 1:
            raise ValueError(f"schemes_per_step must be at least 1, got {schemes_per_step}")
        self.p = p
        self.schemes_per_step = schemes_per_step
        self.left = evaluations
        self.draws = generator(seed, Stream.STRATEGY)

    def ask(self) -> list[ConnectionScheme]:
        number = min(self.schemes_per_step, self.left)
        self.left -= number
        return [ConnectionScheme.random(self.stages, self.p, self.draws) for _ in range(number)]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Nothing is learned from results."""


@STRATEGIES.register_module(name="hsp")
class HeuristicSelection(Strategy):
    """The heuristic selection policy (HSP) of Table 4: every ``N``-th block is connected, starting at each of the
    first ``N``. ``N = 1, 2, …, m`` in turn, one per step; each distinct scheme once.

    Args:
        stages: blocks in each stage.
        seed: unused.
        evaluations: maximum number of evaluations; None for all schemes of the policy.

    Examples:
        >>> strategy = HeuristicSelection((2, 2))
        >>> [[str(scheme) for scheme in strategy.ask()] for n in (1, 2, 3)]
        [['11-11'], ['10-10', '01-01'], ['10-01', '01-00', '00-10']]
        >>> strategy.evaluations
        8
    """

    def __init__(self, stages: Sequence[int], seed: int = 0, *, evaluations: int | None = None) -> None:
        blocks = sum(stages)
        known: set[ConnectionScheme] = set()
        self._steps: list[list[ConnectionScheme]] = []
        for n in range(1, blocks + 1):
            period = [ConnectionScheme.every(stages, n, phase) for phase in range(n)]
            self._steps.append([scheme for scheme in period if scheme not in known])
            known.update(period)
        super().__init__(stages, seed, evaluations=len(known) if evaluations is None else min(evaluations, len(known)))
        self._step = 0
        self.left = self.evaluations

    def ask(self) -> list[ConnectionScheme]:
        if not self.left:
            return []
        asked = self._steps[self._step][: self.left]
        self._step += 1
        self.left -= len(asked)
        return asked

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Nothing is learned from results."""

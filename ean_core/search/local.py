"""Local search by flipping single connections."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ean_core.common.seeding import Stream, generator
from ean_core.scheme import ConnectionScheme

from .strategy import STRATEGIES, Evaluation, Strategy

Bits = tuple[int, ...]


@STRATEGIES.register_module(name="local")
class LocalSearch(Strategy):
    """Iterated local search ("Iterated Local Search", Lourenço, Martin, Stützle, 2003) by flips of single blocks.

    A step asks for schemes that differ from the incumbent in one block, cycling from the last block to the first:
    neighbors in that order share most of the incumbent's prefix, whose activations are computed once per step. All
    flips that improved on it are then combined in the next step, which also asks for neighbors of the combined scheme;
    if that is worse than the best single flip, the search continues from the latter. If no flip improves, the best
    scheme so far is kicked: each of its blocks flips with a small probability.

    No scheme is asked for twice. If kicks reach only known schemes, their probability grows until they draw uniformly
    from all schemes; the search ends when every scheme has been evaluated.

    Args:
        stages: blocks in each stage.
        seed: seed of the first scheme and of the kicks.
        evaluations: total number of evaluations.
        schemes_per_step: schemes scored together. Larger steps share more work, but use results later.
        kick: probability, in ``(0, 0.5]``, that a kick flips a block.

    Raises:
        ValueError: if an option is out of range.
    """

    def __init__(
        self,
        stages: Sequence[int],
        seed: int = 0,
        *,
        evaluations: int = 900,
        schemes_per_step: int = 6,
        kick: float = 0.15,
    ) -> None:
        super().__init__(stages, seed, evaluations=min(evaluations, 2 ** sum(stages)))
        if schemes_per_step < 1:
            raise ValueError(f"schemes_per_step must be at least 1, got {schemes_per_step}")
        if not 0 < kick <= 0.5:
            raise ValueError(f"the probability that a kick flips a block must be in (0, 0.5], got kick={kick}")
        self.schemes_per_step = schemes_per_step
        self.kick = kick
        self.draws = generator(seed, Stream.STRATEGY)
        #: Reward of every evaluated scheme, by its bits.
        self.rewards: dict[Bits, float] = {}
        #: The scheme to improve on, and the one whose neighbors are asked for: all improving flips combined, or else
        #: the incumbent.
        self.incumbent = self.centre = ConnectionScheme.random(self.stages, generator=self.draws).bits
        self.best = self.incumbent
        self._flipped_last = 0

    def ask(self) -> list[ConnectionScheme]:
        left = self.evaluations - len(self.rewards)
        if not left:
            return []
        asked = self._unknown()
        if not asked:
            self.incumbent = self.centre = self._kicked()
            asked = self._unknown()
        return [ConnectionScheme(self.stages, bits) for bits in asked[:left]]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.rewards.update((evaluation.scheme.bits, evaluation.reward) for evaluation in evaluations)
        gains = [e.scheme.bits for e in evaluations if e.reward > self.rewards[self.centre]]
        joint = _joined(self.centre, gains)
        better = self.rewards[self.centre] >= self.rewards[self.incumbent]
        self.incumbent = self._climbed(self._highest(self.incumbent, self.centre, *gains))
        self.centre = joint if better and joint not in self.rewards else self.incumbent
        self.best = self._highest(self.best, self.incumbent)

    def _unknown(self) -> list[Bits]:
        """The center and its next neighbors, skipping schemes that have been evaluated."""
        asked = [] if self.centre in self.rewards else [self.centre]
        blocks = len(self.centre)
        for block in [(self._flipped_last - k) % blocks for k in range(1, blocks + 1)]:
            flipped = _flipped(self.centre, block)
            if len(asked) < self.schemes_per_step and flipped not in self.rewards:
                asked.append(flipped)
                self._flipped_last = block
        return asked

    def _climbed(self, bits: Bits) -> Bits:
        """The scheme reached by moving to the best evaluated neighbor until none is better."""
        while True:
            neighbours = [_flipped(bits, block) for block in range(len(bits))]
            best = self._highest(bits, *(neighbour for neighbour in neighbours if neighbour in self.rewards))
            if best == bits:
                return bits
            bits = best

    def _kicked(self) -> Bits:
        """An unevaluated scheme near the best one."""
        p = self.kick
        while True:
            flips = (torch.rand(len(self.best), generator=self.draws) < p).tolist()
            kicked = tuple(bit ^ flip for bit, flip in zip(self.best, flips, strict=True))
            if kicked not in self.rewards:
                return kicked
            p = min(1.1 * p, 0.5)

    def _highest(self, *schemes: Bits) -> Bits:
        """The scheme with the highest reward; the first one if tied."""
        return max(schemes, key=self.rewards.__getitem__)


def _flipped(bits: Bits, block: int) -> Bits:
    return (*bits[:block], 1 - bits[block], *bits[block + 1 :])


def _joined(bits: Bits, neighbours: Sequence[Bits]) -> Bits:
    """The scheme with the flips of all these neighbors combined."""
    return tuple(bit ^ any(bit != other for other in others) for bit, *others in zip(bits, *neighbours, strict=True))

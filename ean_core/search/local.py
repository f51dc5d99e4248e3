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
    """Iterated local search ("Iterated Local Search", Lourenço, Martin, Stützle, 2003) by flips of one block.

    A step asks for some schemes that differ from the incumbent in one block, going round from the last block to the
    first: neighbours in that order share most of the incumbent's prefix, whose activations a step computes once. All
    flips that improved on it are then made together, in the next step, which also asks for the flips around what
    they give; should that turn out worse than the best of them alone, it goes on from that one. Where no flip improves,
    the best scheme so far is kicked: each of its blocks flips with a small probability.

    No scheme is asked for twice. Where kicks lead only to what is known, they grow until they draw at random from all
    schemes, and the search is over when each has been evaluated.

    Args:
        stages: blocks in each stage.
        seed: of first scheme and kicks.
        evaluations: of schemes, in all.
        schemes_per_step: scored together. More share more work, and learn later of what the others found.
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
            raise ValueError(f"schemes_per_step is at least 1, got {schemes_per_step}")
        if not 0 < kick <= 0.5:
            raise ValueError(f"the probability that a kick flips a block lies in (0, 0.5], got kick={kick}")
        self.schemes_per_step = schemes_per_step
        self.kick = kick
        self.draws = generator(seed, Stream.STRATEGY)
        #: Of every scheme evaluated, by its bits.
        self.rewards: dict[Bits, float] = {}
        #: The scheme to improve on, and the one whose neighbours are asked for: what the flips that improved give
        #: together, or else the incumbent.
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
        """The centre, if it has not been evaluated, and the next of its neighbours that have not been."""
        asked = [] if self.centre in self.rewards else [self.centre]
        blocks = len(self.centre)
        for block in [(self._flipped_last - k) % blocks for k in range(1, blocks + 1)]:
            flipped = _flipped(self.centre, block)
            if len(asked) < self.schemes_per_step and flipped not in self.rewards:
                asked.append(flipped)
                self._flipped_last = block
        return asked

    def _climbed(self, bits: Bits) -> Bits:
        """The scheme reached by going to the best neighbour among those evaluated, until none is better."""
        while True:
            neighbours = [_flipped(bits, block) for block in range(len(bits))]
            best = self._highest(bits, *(neighbour for neighbour in neighbours if neighbour in self.rewards))
            if best == bits:
                return bits
            bits = best

    def _kicked(self) -> Bits:
        """A scheme around the best that has not been evaluated."""
        p = self.kick
        while True:
            flips = (torch.rand(len(self.best), generator=self.draws) < p).tolist()
            kicked = tuple(bit ^ flip for bit, flip in zip(self.best, flips, strict=True))
            if kicked not in self.rewards:
                return kicked
            p = min(1.1 * p, 0.5)

    def _highest(self, *schemes: Bits) -> Bits:
        """The one of highest reward, the first of equals."""
        return max(schemes, key=self.rewards.__getitem__)


def _flipped(bits: Bits, block: int) -> Bits:
    return (*bits[:block], 1 - bits[block], *bits[block + 1 :])


def _joined(bits: Bits, neighbours: Sequence[Bits]) -> Bits:
    """All that these neighbours flip, flipped."""
    return tuple(bit ^ any(bit != other for other in others) for bit, *others in zip(bits, *neighbours, strict=True))

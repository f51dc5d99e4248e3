"""All schemes, in the order in which shared prefixes make them cheapest."""

from __future__ import annotations

from collections.abc import Sequence

from ean_core.scheme import ConnectionScheme

from .strategy import STRATEGIES, Evaluation, Strategy

MOST_BLOCKS = 20


@STRATEGIES.register_module(name="exhaustive")
class Exhaustive(Strategy):
    """All ``2^m`` schemes in lexicographic order of their bits, the first block's being the most significant.

    A step is a subtree, the schemes that share all but their last bits: 64 schemes for up to 12 blocks, 256 for more.
    Larger subtrees would save almost nothing (67,328 block bodies at ``m = 16``, where one step of all 65,536 schemes
    takes 65,535), and a killed search loses one step.

    Args:
        stages: blocks in each stage.
        seed: unused.

    Raises:
        ValueError: if there are more than 20 blocks.

    Examples:
        >>> [str(scheme) for scheme in Exhaustive((1, 1)).ask()]
        ['0-0', '0-1', '1-0', '1-1']
    """

    budgeted = False

    def __init__(self, stages: Sequence[int], seed: int = 0) -> None:
        blocks = sum(stages)
        if blocks > MOST_BLOCKS:
            raise ValueError(
                f"stages {tuple(stages)} have {blocks} blocks, hence {2**blocks:,} schemes, too many to score them all "
                f"(at most {MOST_BLOCKS} blocks); search with 'local' instead"
            )
        super().__init__(stages, seed, evaluations=2**blocks)
        self.schemes_per_step = min(2**blocks, 64 if blocks <= 12 else 256)
        self.asked = 0

    def ask(self) -> list[ConnectionScheme]:
        numbers = range(self.asked, min(self.asked + self.schemes_per_step, self.evaluations))
        self.asked += len(numbers)
        digits = (f"{number:0{sum(self.stages)}b}" for number in numbers)
        return [ConnectionScheme(self.stages, tuple(map(int, text))) for text in digits]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """The order of schemes does not depend on results."""

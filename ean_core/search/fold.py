"""Replace computed gates by constants where the score allows it: the cheapest scheme within a bound.

A gate that hardly depends on the image is a scale that the deployed network folds into its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch
from torch import nn

from ean_core.backbone import find_backbone
from ean_core.common.output import say
from ean_core.common.progress import Progress
from ean_core.common.tasks import Metric
from ean_core.inference.statistics import GateMoments, watched_gates
from ean_core.scheme import ConnectionScheme

from .evaluator import Batches, SupernetEvaluator
from .ledger import Ledger
from .scorer import Difference, Rows, Score, Scorer, scorer_of

#: Up to this many connections, all sets of constants are scored that have as many constants as the chosen one or more.
EXACT = 16
#: Up to this many, all sets are scored together, which costs no more bodies than the sets of half of their numbers.
TOGETHER = 10
#: Schemes that are scored in one call, and then written to the ledger.
CHUNK = 64
#: Loss that is accepted by default in a metric in percent, unless the standard error of the difference is larger.
POINTS = 0.2


@dataclass(frozen=True)
class Folded:
    """A network with some of its gates replaced by constants, and its score.

    Args:
        scheme: its connections and constants.
        score: its metric.
        difference: difference from the network without constants, over the same images.
    """

    scheme: ConnectionScheme
    score: Score
    difference: Difference

    def loss(self, metric: Metric) -> float:
        """How much worse than the network without constants; negative if better."""
        return -metric.merit(self.difference.value)

    def within(self, metric: Metric, margin: float | None) -> bool:
        """Whether the loss is at most ``margin``; None: 0.2 points of a metric in percent, or one standard error of the
        difference if that is larger."""
        if margin is None:
            margin = max(self.difference.standard_error, POINTS if metric.unit == "%" else 0.0)
        return self.loss(metric) <= margin + 1e-9  # which rounding may add

    def plain(self) -> dict[str, Any]:
        """Plain values for a ledger or a record."""
        return {
            "scheme": str(self.scheme),
            "connections": self.scheme.connections,
            "constants": self.scheme.constants,
            "score": float(self.score),
            "standard_error": self.score.standard_error,
            "difference": asdict(self.difference),
        }

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Folded:
        """The network of a line of the ledger."""
        found = dict(line["difference"])
        interval = found.pop("interval")
        difference = Difference(**found, interval=interval and (interval[0], interval[1]))
        return cls(ConnectionScheme.parse(line["scheme"]), Score(line["score"], line["standard_error"]), difference)


def measure_constants(network: nn.Module, batches: Batches) -> None:
    """Give a network the mean gates of each connected block over training images as constants; its scheme stays as it
    is.

    Args:
        network: a network of a task with a scorer, in evaluation mode.
        batches: training images, read as validation images are.

    Raises:
        ValueError: if the gates of its attention module are not one per channel.
    """
    backbone, scorer = find_backbone(network), scorer_of(network)
    scheme = backbone.scheme
    connected = [number for number, bit in enumerate(scheme.bits) if bit]
    backbone.set_scheme(scheme.with_constants(connected))  # raises if a gate cannot be constant
    backbone.set_scheme(scheme)
    moments = {number: GateMoments() for number in connected}
    with (
        torch.inference_mode(),
        watched_gates(backbone, lambda number, gate: moments[number].add(gate)),
        Progress("mean gates", len(batches)) as progress,
    ):
        for batch in batches:
            scorer.rows(scorer.prepare(batch))  # as the network runs later, in tiles for example
            progress.advance()
    blocks = [block for _, _, block in backbone.blocks()]
    for number, found in moments.items():
        constant = blocks[number].constant_gate
        assert constant is not None  # made with the scheme
        constant.data.copy_(found.means)


class Folding:
    """The search for the cheapest scheme within a bound of the network without constants.

    Up to :data:`EXACT` connections, sets of computed gates are compared by their number, from none upward, until one is
    within the bound: the scheme with the fewest connections, and the best of that number. Beyond, gates become constant
    one by one, late blocks first, where the whole stays within the bound.

    Args:
        evaluator: scores schemes of a network that holds the constants.
        base: the network's own scheme.
        ledger: an open ledger, which holds the schemes scored so far.
        margin: see :meth:`Folded.within`.
        say: called with a line per step.
    """

    def __init__(
        self,
        evaluator: SupernetEvaluator,
        base: ConnectionScheme,
        ledger: Ledger,
        margin: float | None = None,
        say: Callable[[str], None] = say,
    ) -> None:
        self.evaluator, self.base, self.ledger, self.margin, self.say = evaluator, base, ledger, margin, say
        self.metric = evaluator.metric
        self.blocks = [number for number, bit in enumerate(base.bits) if bit]
        self._known = {found.scheme: found for found in map(Folded.of, ledger.lines)}
        self._base_rows = evaluator.rows([base])[base]

    def run(self) -> list[Folded]:
        """Return the best scheme of each number of connections that was tried, fewest first; the last one is chosen."""
        return self._greedy() if len(self.blocks) > EXACT else self._exact()

    def _exact(self) -> list[Folded]:
        if len(self.blocks) <= TOGETHER:
            numbers = range(len(self.blocks) + 1)
            self._scored([self.base.with_constants(some) for n in numbers for some in combinations(self.blocks, n)])
        best: list[Folded] = []
        for computed in range(len(self.blocks) + 1):
            kept = combinations(self.blocks, computed)
            found = self._scored([self.base.with_constants({*self.blocks} - {*some}) for some in kept])
            within = [each for each in found if each.within(self.metric, self.margin)]
            best.append(self._best(within or found))
            self._say_step(best[-1], f", the best of {len(found)} schemes" if len(found) > 1 else "")
            if within:
                break
        return best

    def _greedy(self) -> list[Folded]:
        (chosen,) = self._scored([self.base])
        for block in reversed(self.blocks):
            (tried,) = self._scored([chosen.scheme.with_constants({block})])
            self._say_step(tried)
            if tried.within(self.metric, self.margin):
                chosen = tried
        return [chosen]

    def _best(self, found: Iterable[Folded]) -> Folded:
        return max(found, key=lambda each: (self.metric.merit(each.score), each.scheme))

    def _scored(self, schemes: Sequence[ConnectionScheme]) -> list[Folded]:
        unknown = sorted({scheme for scheme in schemes if scheme not in self._known})
        with Progress("scoring schemes", len(unknown)) if len(unknown) > CHUNK else nullcontext() as progress:
            for start in range(0, len(unknown), CHUNK):
                rows = self.evaluator.rows(unknown[start : start + CHUNK])
                found = [compared(self.evaluator.scorer, scheme, own, self._base_rows) for scheme, own in rows.items()]
                self.ledger.append(*(each.plain() for each in found))
                self._known.update((each.scheme, each) for each in found)
                if progress:
                    progress.advance(steps=len(found))
        return [self._known[scheme] for scheme in schemes]

    def _say_step(self, found: Folded, which: str = "") -> None:
        computed = found.scheme.connections
        accepted = "within" if found.within(self.metric, self.margin) else "beyond"
        self.say(
            f"{computed or 'no'} gate{'s' * (computed > 1)} computed: {found.scheme}{which}: "
            f"{self.metric.text(found.score)}, {found.difference.text(difference_unit(self.metric))} from the network "
            f"with all gates computed, {accepted} the margin"
        )


def difference_unit(metric: Metric) -> str:
    """The unit of differences of a metric: a difference of percentages is in points.

    Examples:
        >>> from ean_core.common.tasks import ACCURACY
        >>> difference_unit(ACCURACY)
        'points'
    """
    return "points" if metric.unit == "%" else metric.unit


def compared(scorer: Scorer, scheme: ConnectionScheme, rows: Rows, base: Rows) -> Folded:
    """Score a scheme by its rows, and compare it with those of the network without constants on the same images."""
    return Folded(scheme, scorer.score(rows), scorer.difference(rows, base))

"""What many evaluations say together: the best trades of accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from .strategy import Evaluation


def front(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """The evaluations that no other one dominates, by rising cost, and so by rising accuracy.

    One dominates another if it is neither less accurate nor dearer, and better in one of both. Of those that agree in
    both, the one with the fewest connections stands for all; then the first in the order of schemes.

    Examples:
        >>> from ean_core import ConnectionScheme
        >>> schemes = [ConnectionScheme.parse(text) for text in ("00-00", "01-00", "10-00", "11-11")]
        >>> found = front(
        ...     Evaluation(scheme, accuracy, scheme.connections, reward=accuracy)
        ...     for scheme, accuracy in zip(schemes, (51.5, 54.0, 54.0, 53.9))
        ... )
        >>> [(str(e.scheme), e.accuracy) for e in found]
        [('00-00', 51.5), ('01-00', 54.0)]
    """
    found: list[Evaluation] = []
    for evaluation in sorted(evaluations, key=lambda e: (e.cost, -e.accuracy, e.scheme.connections, e.scheme)):
        if not found or evaluation.accuracy > found[-1].accuracy:
            found.append(evaluation)
    return found


def best_by_coefficient(evaluations: Iterable[Evaluation]) -> list[tuple[float, float, Evaluation]]:
    """The best scheme for every weight that sparsity may have in the reward (Eqn 7).

    Args:
        evaluations: of schemes of one network; of all of them, the answer is exact for the network.

    Returns:
        ``(low, high, evaluation)`` by rising coefficient: between ``low`` and ``high`` the evaluation has the highest
        ``accuracy + coefficient * sparsity`` (percent; sparsity of Eqn 6). The intervals join and cover ``[0, inf]``;
        where two meet, both are best. One that is best at a single point only is left out; of several that always
        agree, the first in the order of schemes stands for all.

    Examples:
        >>> from ean_core import ConnectionScheme
        >>> schemes = [ConnectionScheme.parse(text) for text in ("00-00", "10-00", "10-10", "11-11")]
        >>> for low, high, found in best_by_coefficient(
        ...     Evaluation(scheme, accuracy, scheme.connections, reward=accuracy)
        ...     for scheme, accuracy in zip(schemes, (51.5, 54.0, 55.5, 53.5))
        ... ):
        ...     print(f"{low:4.1f} {high:4.1f} {found.scheme}")
         0.0  6.0 10-10
         6.0 10.0 10-00
        10.0  inf 00-00
    """
    by_connections: dict[int, Evaluation] = {}
    for evaluation in sorted(evaluations, key=lambda e: (-e.accuracy, e.scheme.connections, e.scheme)):
        by_connections.setdefault(evaluation.scheme.connections, evaluation)
    if not by_connections:
        return []
    best = next(iter(by_connections.values()))  # without regard to sparsity
    found, low = [], 0.0
    while sparser := [e for e in by_connections.values() if e.scheme.connections < best.scheme.connections]:
        # Exact numbers, for rounding must not turn schemes on one line into intervals that overlap.
        overtakes, following = min(
            ((_meeting(best, e), e) for e in sparser), key=lambda pair: (pair[0], pair[1].scheme.connections)
        )
        found.append((low, float(overtakes), best))
        low, best = float(overtakes), following
    return [*found, (low, math.inf, best)]


def _meeting(accurate: Evaluation, sparse: Evaluation) -> Fraction:
    """The coefficient at which a sparser, less accurate scheme draws level."""
    lost = Fraction(accurate.accuracy) - Fraction(sparse.accuracy)
    return lost * len(sparse.scheme.bits) / (accurate.scheme.connections - sparse.scheme.connections)

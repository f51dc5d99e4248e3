"""Pareto front of the score against cost, and the best scheme for each sparsity weight."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from .strategy import Evaluation


def front(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """The non-dominated evaluations, by increasing cost and thus better scores.

    One dominates another if its score is not worse and its cost not higher, and it is better in at least one of the
    two. Of evaluations equal in both, the one with the fewest connections is kept; among these, the first in scheme
    order.

    Examples:
        >>> from ean_core import ConnectionScheme
        >>> schemes = [ConnectionScheme.parse(text) for text in ("00-00", "01-00", "10-00", "11-11")]
        >>> found = front(
        ...     Evaluation(scheme, accuracy, scheme.connections, reward=accuracy)
        ...     for scheme, accuracy in zip(schemes, (51.5, 54.0, 54.0, 53.9))
        ... )
        >>> [(str(e.scheme), e.score) for e in found]
        [('00-00', 51.5), ('01-00', 54.0)]
    """
    found: list[Evaluation] = []
    for evaluation in sorted(evaluations, key=lambda e: (e.cost, -e.merit, e.scheme.connections, e.scheme)):
        if not found or evaluation.merit > found[-1].merit:
            found.append(evaluation)
    return found


def best_by_coefficient(evaluations: Iterable[Evaluation]) -> list[tuple[float, float, Evaluation]]:
    """The best scheme for every weight of the sparsity in the reward (Eqn 7).

    Args:
        evaluations: evaluations of schemes of one network; if they cover all schemes, the result is exact.

    Returns:
        ``(low, high, evaluation)`` by increasing coefficient: between ``low`` and ``high`` the evaluation has the
        highest ``score + coefficient * sparsity`` (sparsity of Eqn 6; a score of which less is better counts as
        negative). The intervals are adjacent and cover ``[0, inf]``; where two meet, both are best. A scheme that is
        best only at a single point is omitted; of schemes that are always equal, the first in scheme order is kept.

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
    for evaluation in sorted(evaluations, key=lambda e: (-e.merit, e.scheme.connections, e.scheme)):
        by_connections.setdefault(evaluation.scheme.connections, evaluation)
    if not by_connections:
        return []
    best = next(iter(by_connections.values()))  # ignoring sparsity
    found, low = [], 0.0
    while sparser := [e for e in by_connections.values() if e.scheme.connections < best.scheme.connections]:
        # Exact arithmetic: rounding must not turn collinear schemes into overlapping intervals.
        overtakes, following = min(
            ((_meeting(best, e), e) for e in sparser), key=lambda pair: (pair[0], pair[1].scheme.connections)
        )
        found.append((low, float(overtakes), best))
        low, best = float(overtakes), following
    return [*found, (low, math.inf, best)]


def _meeting(accurate: Evaluation, sparse: Evaluation) -> Fraction:
    """The coefficient at which a sparser, less accurate scheme has the same reward."""
    lost = Fraction(accurate.merit) - Fraction(sparse.merit)
    return lost * len(sparse.scheme.bits) / (accurate.scheme.connections - sparse.scheme.connections)

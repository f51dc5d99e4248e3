"""Cost of scoring schemes together: block bodies in the tree of their prefixes, and the time they take."""

from __future__ import annotations

from collections.abc import Iterable

from ean_core.inference.latency import BlockTimes
from ean_core.scheme import ConnectionScheme


def count_bodies(schemes: Iterable[ConnectionScheme]) -> int:
    """Number of block bodies computed per batch when these schemes are scored in one call.

    The body of block ``l`` depends on ``a_1 … a_(l-1)`` only, so there is one for each distinct proper prefix.

    Examples:
        >>> count_bodies([ConnectionScheme.parse('00-0'), ConnectionScheme.parse('00-1')])
        3
        >>> count_bodies([ConnectionScheme.parse('00-0'), ConnectionScheme.parse('10-0')])
        5
    """
    return len({scheme.marks[:depth] for scheme in schemes for depth in range(len(scheme.bits))})


def walk_seconds(schemes: Iterable[ConnectionScheme], times: BlockTimes) -> float:
    """Predicted seconds of scoring these schemes in one call, on one batch.

    Each node of the tree costs a body, each branch a join, plus an attention module if it connects, and each scheme
    a head.

    Args:
        schemes: schemes of one network.
        times: times of that network's parts, for the batch size in question.
    """
    distinct = set(schemes)
    if not distinct:
        return 0.0
    blocks = len(next(iter(distinct)).bits)
    seconds = times.stem + len(distinct) * times.head
    for depth in range(blocks):
        branches = {scheme.marks[: depth + 1] for scheme in distinct}
        seconds += len({branch[:depth] for branch in branches}) * times.bodies[depth]
        seconds += len(branches) * times.joins[depth]
        seconds += sum(branch[depth] == "1" for branch in branches) * times.connections[depth]
    return seconds

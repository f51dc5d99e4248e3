"""What it takes to score schemes together: the tree of their prefixes, counted and priced."""

from __future__ import annotations

from collections.abc import Iterable

from ean_core.inference.latency import BlockTimes
from ean_core.scheme import ConnectionScheme


def count_bodies(schemes: Iterable[ConnectionScheme]) -> int:
    """Block bodies that are computed for each batch when these schemes are scored in one call.

    The body of block ``l`` depends on ``a_1 … a_(l-1)`` only, so there is one for each distinct proper prefix.

    Examples:
        >>> count_bodies([ConnectionScheme.parse('00-0'), ConnectionScheme.parse('00-1')])
        3
        >>> count_bodies([ConnectionScheme.parse('00-0'), ConnectionScheme.parse('10-0')])
        5
    """
    return len({scheme.bits[:depth] for scheme in schemes for depth in range(len(scheme.bits))})


def walk_seconds(schemes: Iterable[ConnectionScheme], times: BlockTimes) -> float:
    """Predicted seconds of scoring these schemes in one call, on one batch.

    Each node of the tree is a body; each of its branches a join, and an attention module where it connects; each
    scheme a head.

    Args:
        schemes: of one network.
        times: of that network's parts, on a batch of the size that counts.
    """
    distinct = set(schemes)
    if not distinct:
        return 0.0
    blocks = len(next(iter(distinct)).bits)
    seconds = times.stem + len(distinct) * times.head
    for depth in range(blocks):
        branches = {scheme.bits[: depth + 1] for scheme in distinct}
        seconds += len({branch[:depth] for branch in branches}) * times.bodies[depth]
        seconds += len(branches) * times.joins[depth]
        seconds += sum(branch[depth] for branch in branches) * times.connections[depth]
    return seconds

"""Text for the terminal: schemes, curves, durations, and wrapping."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from ean_core.scheme import CONSTANT, ConnectionScheme

#: A block without a gate, a connected one, and one with a constant gate.
SQUARES = str.maketrans({"0": "□", "1": "■", CONSTANT: "▣"})
LEVELS = "▁▂▃▄▅▆▇█"


def squares(scheme: ConnectionScheme) -> str:
    """Format a scheme as squares, one per block, filled if connected, with a square inside if its gate is constant;
    with a space between stages.

    Examples:
        >>> squares(ConnectionScheme.parse('010-1c0'))
        '□■□ ■▣□'
    """
    return " ".join(scheme.marks_by_stage).translate(SQUARES)


def sparkline(values: Sequence[float], width: int) -> str:
    """Format values as at most ``width`` bars, scaled from the lowest to the highest; each bar is the mean of its bin.

    Examples:
        >>> sparkline([3.0, 2.0, 1.0, 1.0], width=4)
        '█▅▁▁'
        >>> sparkline([1.0, 3.0, 5.0, 7.0], width=2)
        '▁█'
    """
    values = [value for value in values if abs(value) < float("inf")]  # drop NaN and inf
    count = min(width, len(values))
    ends = [len(values) * i // count for i in range(count + 1)] if count > 0 else []
    means = [fmean(values[low:high]) for low, high in pairwise(ends)]
    if not means:
        return ""
    low, high = min(means), max(means)
    return "".join(
        LEVELS[round((mean - low) / (high - low) * (len(LEVELS) - 1)) if high > low else 0] for mean in means
    )


def packed(parts: Sequence[str], width: int, joint: str = ", ") -> str:
    """Join parts into as few lines as possible without breaking a part; a part may contain line breaks.

    Examples:
        >>> packed(['epoch 3', 'MAE 11.20', 'RMSE 20.10'], width=20)
        'epoch 3, MAE 11.20,\\nRMSE 20.10'
    """
    whole = joint.join(part.replace(" ", "\xa0") for part in parts)  # textwrap breaks at plain spaces only
    lines = [
        line
        for text in whole.split("\n")
        for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    ]
    return "\n".join(lines).replace("\xa0", " ")


def shortened(text: str, width: int, tail: float = 1.0) -> str:
    """Shorten a path that is too long by dropping its beginning or its middle.

    Args:
        text: the path.
        width: maximum number of characters.
        tail: fraction of the characters taken from the end.

    Examples:
        >>> shortened('work_dirs/resnet20_se', 12), shortened('ean_resnet20_se.cifar100', 13, tail=0.7)
        ('…resnet20_se', 'ean_…cifar100')
    """
    if len(text) <= width:
        return text
    end = round((width - 1) * tail)
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"

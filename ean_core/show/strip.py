"""A connection scheme as a small picture for pages: one square a block."""

from __future__ import annotations

from ean_core.scheme import ConnectionScheme

from .figures import COLOURS, EMPTY

#: A square's side, the gap to the next, and the gap between stages, in pixels; smaller for networks of many blocks.
WIDE, NARROW = (9, 2, 7), (5, 1, 4)
MANY_BLOCKS = 36


def scheme_strip(scheme: ConnectionScheme, colour: str = COLOURS[0]) -> str:
    """SVG of a row of squares, filled where a block is connected, with a wider gap between stages.

    Examples:
        >>> print(scheme_strip(ConnectionScheme.parse('1-0')))
        <svg xmlns="http://www.w3.org/2000/svg" width="25" height="9" role="img"><title>1-0</title>
        <rect x="0" width="9" height="9" fill="#0072B2"/>
        <rect x="16" width="9" height="9" fill="#E4E4E4"/>
        </svg>
    """
    side, gap, between_stages = WIDE if len(scheme.bits) <= MANY_BLOCKS else NARROW
    squares, x = [], 0
    for stage in scheme.by_stage:
        for bit in stage:
            squares.append(f'<rect x="{x}" width="{side}" height="{side}" fill="{colour if bit else EMPTY}"/>')
            x += side + gap
        x += between_stages - gap
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{x - between_stages}" height="{side}" role="img">'
    return "\n".join([f"{head}<title>{scheme}</title>", *squares, "</svg>"])

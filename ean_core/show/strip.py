"""A connection scheme as a small SVG for web pages, one square per block."""

from __future__ import annotations

from ean_core.scheme import CONSTANT, ConnectionScheme

from .colours import COLOURS, EMPTY

#: Side of a square, gap between squares, gap between stages, in pixels; ``NARROW`` for networks with many blocks.
WIDE, NARROW = (9, 2, 7), (5, 1, 4)
MANY_BLOCKS = 36


def scheme_strip(scheme: ConnectionScheme, colour: str = COLOURS[0]) -> str:
    """Return an SVG with a row of squares, filled for connected blocks, outlined for those with a constant gate, and a
    wider gap between stages.

    Examples:
        >>> print(scheme_strip(ConnectionScheme.parse('1-0')))
        <svg xmlns="http://www.w3.org/2000/svg" width="25" height="9" role="img"><title>1-0</title>
        <rect x="0" width="9" height="9" fill="#0072B2"/>
        <rect x="16" width="9" height="9" fill="#E4E4E4"/>
        </svg>
        >>> print(scheme_strip(ConnectionScheme.parse('c', stages=(1,))).splitlines()[1])
        <rect x="1" y="1" width="7" height="7" fill="#E4E4E4" stroke="#0072B2" stroke-width="2"/>
    """
    side, gap, between_stages = WIDE if len(scheme.bits) <= MANY_BLOCKS else NARROW
    squares, x = [], 0
    line = side // 4  # width of an outline, half of it inside the rectangle's edges
    for stage in scheme.marks_by_stage:
        for mark in stage:
            if mark == CONSTANT:
                place = f'x="{x + line / 2:g}" y="{line / 2:g}" width="{side - line}" height="{side - line}"'
                squares.append(f'<rect {place} fill="{EMPTY}" stroke="{colour}" stroke-width="{line}"/>')
            else:
                fill = colour if mark == "1" else EMPTY
                squares.append(f'<rect x="{x}" width="{side}" height="{side}" fill="{fill}"/>')
            x += side + gap
        x += between_stages - gap
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{x - between_stages}" height="{side}" role="img">'
    return "\n".join([f"{head}<title>{scheme}</title>", *squares, "</svg>"])

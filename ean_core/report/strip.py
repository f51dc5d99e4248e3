"""A connection scheme as a small picture for pages: one square a block."""

from __future__ import annotations

from ean_core.scheme import ConnectionScheme

from .figures import COLOURS, EMPTY

SIDE, GAP, BETWEEN_STAGES = 9, 2, 7  # pixels


def scheme_strip(scheme: ConnectionScheme, colour: str = COLOURS[0]) -> str:
    """SVG of a row of squares, filled where a block is connected, with a wider gap between stages.

    Examples:
        >>> print(scheme_strip(ConnectionScheme.parse('1-0')))
        <svg xmlns="http://www.w3.org/2000/svg" width="25" height="9" role="img"><title>1-0</title>
        <rect x="0" width="9" height="9" fill="#0072B2"/>
        <rect x="16" width="9" height="9" fill="#E4E4E4"/>
        </svg>
    """
    squares, x = [], 0
    for stage in scheme.by_stage:
        for bit in stage:
            squares.append(f'<rect x="{x}" width="{SIDE}" height="{SIDE}" fill="{colour if bit else EMPTY}"/>')
            x += SIDE + GAP
        x += BETWEEN_STAGES - GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{x - BETWEEN_STAGES}" height="{SIDE}" role="img">'
    return "\n".join([f"{head}<title>{scheme}</title>", *squares, "</svg>"])

import itertools
import xml.etree.ElementTree as ET

import pytest

from ean_core import ConnectionScheme
from ean_core.show.colours import COLOURS, EMPTY
from ean_core.show.strip import scheme_strip


@pytest.mark.parametrize("text", ["1-0", "010-0010-110011-001", "000-000-000"])
def test_one_square_a_block_with_wider_gaps_between_stages(text):
    root = ET.fromstring(scheme_strip(ConnectionScheme.parse(text)))
    squares = root.findall("{*}rect")
    assert [square.get("fill") for square in squares] == [
        COLOURS[0] if bit == "1" else EMPTY for bit in text.replace("-", "")
    ]
    x = [int(square.get("x")) for square in squares]
    steps = [b - a for a, b in itertools.pairwise(x)]
    assert len(set(steps)) <= 2
    assert steps.count(max(steps)) == text.count("-")
    assert int(root.get("width")) == x[-1] + 9
    assert root.find("{*}title").text == text


def test_a_constant_gate_is_an_outline_of_the_same_size():
    wide = ET.fromstring(scheme_strip(ConnectionScheme.parse("1c0-c")))
    narrow = ET.fromstring(scheme_strip(ConnectionScheme.full((18, 18, 18)).with_constants([0])))
    for root, side in ((wide, 9), (narrow, 5)):
        squares = [square for square in root.findall("{*}rect") if square.get("stroke")]
        assert len(squares) == root.find("{*}title").text.count("c")
        for square in squares:
            x, width, line = (float(square.get(name)) for name in ("x", "width", "stroke-width"))
            assert ((x - line / 2) % 1, width + line) == (0, side)
            assert (square.get("fill"), square.get("stroke")) == (EMPTY, COLOURS[0])

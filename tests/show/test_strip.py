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

from ean_core.show.terminal import packed, sparkline


def test_a_value_that_is_not_a_number_leaves_a_gap_not_an_error():
    assert sparkline([1.0, float("nan"), 2.0, float("inf")], width=4) == "▁█"
    assert sparkline([], width=4) == sparkline([float("nan")], width=4) == ""
    assert sparkline([1.0, 2.0], width=0) == ""


def test_parts_are_broken_neither_at_spaces_nor_at_hyphens():
    assert packed(["ResNet-20", "SE 010-100-000", "a b"], 12) == "ResNet-20,\nSE 010-100-000,\na b"
    assert packed(["■■ ■■", "one\ntwo"], 9) == "■■ ■■,\none\ntwo"

import csv
import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ean_core.common.record import csv_text
from ean_core.common.text import (
    VisibleRecord,
    csv_cell,
    from_csv_cell,
    markdown,
    markdown_cell,
    markdown_code,
    visible,
)

HOSTILE = "a\x1b]0;x\x07\x1b[31m\r\n\u202egpj\u2066\x9b1m\udc80.png"


def test_nothing_invisible_is_left():
    assert visible(HOSTILE).isprintable()
    assert visible(HOSTILE).startswith("a\\x1b]0;x\\x07\\x1b[31m\\r\\n\\u202egpj\\u2066\\x9b1m\\udc80")
    visible(HOSTILE).encode()
    assert visible("é 東京 \U0001f469\u200d\U0001f680.png") == "é 東京 \U0001f469\u200d\U0001f680.png"


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-1+1", "@SUM(1)", "\t=1", "\r=1", "＝1+1", "-", "-1 (=x)"]
)
def test_formulas_are_marked_and_read_back(text):
    assert csv_cell(text).startswith("'")
    assert from_csv_cell(csv_cell(text)) == text


@pytest.mark.parametrize(
    "text", ["-1", "+1.25", "-3.4e-05", "1,234", "-inf", "+1.2 (+1.0 to +2.0)", "-0.5 ± 0.1", "-3 %"]
)
def test_numbers_stay_numbers(text):
    assert csv_cell(text) == text


def test_values_that_are_no_text():
    assert [csv_cell(value) for value in (-1, -1.5, None, True)] == [-1, -1.5, None, True]


def test_formulas_after_what_a_spreadsheet_may_take_for_a_separator():
    assert csv_cell("a;=1") == "a;'=1"
    assert csv_cell("a\n=1") == "a\n'=1"
    assert csv_cell("a=1") == "a=1"


@given(st.text(alphabet="=+-@'\t\r\n;a1＝", max_size=12))
def test_any_cell_is_read_back(text):
    cell = csv_cell(text)
    assert from_csv_cell(cell) == text
    assert next(csv.reader(io.StringIO(csv_text([text, "b"], []), newline="")))[0] == cell


def test_tables_have_no_formulas():
    assert csv_text(["image", "=x"], [["=1.jpg", -1.5]]) == "image,'=x\n'=1.jpg,-1.5\n"


def test_markdown():
    assert markdown("`a[0] <b>` <img src=x> ![x](y)") == "`a[0] <b>` &lt;img src=x> !\\[x\\](y)"
    assert markdown_cell("a|b\nc\u202e") == "a\\|b c\\u202e"
    assert markdown_code("a ` <img src=x>\n| b") == "`a ' <img src=x> \\| b`"
    assert markdown("+1.2 (+1.0 to +2.0), 3 < 4") == "+1.2 (+1.0 to +2.0), 3 < 4"


def test_log_records_are_visible_but_have_lines():
    record = VisibleRecord("a", logging.INFO, "a.py", 1, "%s\nmore", ("\x1b[2J",), None)
    assert record.getMessage() == "\\x1b[2J\nmore"

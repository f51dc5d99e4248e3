import re
import sys

import pytest

from ean_core import ConnectionScheme
from ean_core.common.tasks import headline
from ean_core.show.table import NetworkRow, markdown_table, metric_texts, print_table

VANILLA = NetworkRow("vanilla", ConnectionScheme.parse("00-00"), 1727284, 74.1, 0.01234, 0.0, (-0.012, 0.013))
EAN = NetworkRow("EAN", ConnectionScheme.parse("10-01"), 1738512, 75.256, 0.0131, 0.103, (0.0995, 0.1204))
LONG = "001100000001010111-011100001000010111-101000100110000000"


def test_every_value_has_its_column_and_unit():
    assert EAN.cells() == {
        "network": "EAN",
        "parameters": "1,738,512",
        "accuracy (%)": "75.26",
        "latency (ms)": "13.10",
        "increment (%)": "+10.3 (+10.0 to +12.0)",
        "memory (MB)": "",
        "GMACs": "",
        "scheme": "10-01",
    }


def test_what_is_unknown_has_no_text_and_zero_is_known():
    known = [title for title, text in NetworkRow("EAN", EAN.scheme, 1).cells().items() if text]
    assert known == ["network", "parameters", "scheme"]
    zero = NetworkRow("worst", EAN.scheme, 0, 0.0, 0.0, 0.0).cells()
    assert (zero["accuracy (%)"], zero["latency (ms)"], zero["increment (%)"]) == ("0.00", "0.00", "+0.0")
    assert NetworkRow("EAN", EAN.scheme, 1, increment=-0.05).cells()["increment (%)"] == "-5.0"


def test_cells_are_no_markup_and_no_escape_sequences(capsys):
    print_table([{"a": "[red]x[/red]", "b[bold]": "[/]\x1b[2J\u202e"}], title="[link=x]t\x1b[0m")
    text = capsys.readouterr().out
    for shown in ("[red]x[/red]", "[/]\\x1b[2J\\u202e", "b[bold]", "[link=x]t\\x1b[0m"):
        assert shown in text
    row = {"a|b": "<script>x</script>\n| `c`", "d": "![x](https://host/a.png)"}
    assert markdown_table([row]).splitlines()[1:] == [
        "|---|---|",
        "| &lt;script>x&lt;/script> \\| `c` | !\\[x\\](https://host/a.png) |",
    ]


def test_markdown_has_a_line_a_network():
    assert markdown_table([VANILLA.cells(), EAN.cells()]).splitlines() == [
        "| network | parameters | accuracy (%) | latency (ms) | increment (%) | scheme |",
        "|---|---|---|---|---|---|",
        "| vanilla | 1,727,284 | 74.10 | 12.34 | +0.0 (-1.2 to +1.3) | 00-00 |",
        "| EAN | 1,738,512 | 75.26 | 13.10 | +10.3 (+10.0 to +12.0) | 10-01 |",
    ]


def sparse():
    rows = [NetworkRow("vanilla", VANILLA.scheme, 10, seconds=0.001), NetworkRow("EAN", EAN.scheme, 11, accuracy=75.0)]
    return [row.cells() for row in rows]


def test_rows_that_know_different_things_keep_their_columns():
    assert markdown_table(sparse()).splitlines() == [
        "| network | parameters | accuracy (%) | latency (ms) | scheme |",
        "|---|---|---|---|---|",
        "| vanilla | 10 |  | 1.00 | 00-00 |",
        "| EAN | 11 | 75.00 |  | 10-01 |",
    ]


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def cells(line):
    return [cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")]


def test_the_terminal_shows_the_same_cells(capsys):
    print_table(sparse(), title="inference, batch 50")
    title, _, head, _, *rows, _ = capsys.readouterr().out.splitlines()
    assert title.strip() == "inference, batch 50"
    assert cells(head) == ["network", "parameters", "accuracy (%)", "latency (ms)", "scheme"]
    assert [cells(row) for row in rows] == [["vanilla", "10", "", "1.00", "00-00"], ["EAN", "11", "75.00", "", "10-01"]]


@pytest.mark.parametrize("columns", ["20", "400"])
def test_a_long_scheme_is_neither_cut_nor_broken(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    row = NetworkRow("EAN", ConnectionScheme.parse(LONG), 1946132, 75.0, 0.1, 0.9, (0.8, 1.0))
    print_table([row.cells()], title="t")
    assert LONG in capsys.readouterr().out


@pytest.fixture
def on_terminal(capsys, monkeypatch):
    """Prints a table on a terminal of some columns; returns its lines."""

    def shown(rows, columns, **options):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(rows, title="t", **options)
        return [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in capsys.readouterr().out.splitlines()]

    return shown


def test_texts_are_wrapped_between_words_on_a_narrow_terminal(on_terminal):
    rows = [{"what": "Training Command", "value": "ean train resnet20 " * 8}, {"what": "sha256", "value": "f88a" * 16}]
    lines = on_terminal(rows, 80)
    assert all(len(line) == 80 for line in lines[1:])
    wrapped = [cells(line) for line in lines[4:-1]]
    assert [name for name, _ in wrapped] == ["Training Command", "", "", "sha256", ""]
    assert all(part.startswith("ean train") or part.endswith("resnet20") for _, part in wrapped[:3])
    assert "".join(part for _, part in wrapped[3:]) == "f88a" * 16
    assert on_terminal(rows, 200)[-2].count("f88a") == 16


def test_numbers_and_names_are_never_wrapped(on_terminal):
    rows = [{"network": "EAN of two", "increment (%)": "+2.1 (+1.8 to +2.6)", "note": "some words " * 9}]
    lines = on_terminal(rows, 60)
    assert max(map(len, lines)) == 60
    assert cells(lines[4])[:2] == ["EAN of two", "+2.1 (+1.8 to +2.6)"]


def test_extra_columns_are_left_out_of_a_narrow_terminal_the_last_first(on_terminal, capsys, monkeypatch):
    rows = [{"network": "EAN", "a": "a" * 20, "b": "1", "c": "c" * 20}]

    def titles(columns):
        return cells(on_terminal(rows, columns, extra=("c", "b", "a"))[2])

    assert titles(61) == ["network", "a", "b", "c"]
    assert titles(60) == ["network", "b", "c"]
    assert titles(37) == ["network", "c"]
    assert titles(33) == ["network"]
    monkeypatch.undo()
    print_table(rows, title="t", extra=("c", "b", "a"))
    assert "a" * 20 in capsys.readouterr().out


def test_rows_that_cannot_fit_are_blocks_of_aligned_lines(on_terminal):
    long = NetworkRow("EAN", ConnectionScheme.parse(LONG), 1946132, None, 0.1, 0.9, (0.8, 1.0))
    assert on_terminal([VANILLA.cells(), long.cells()], 73) == [
        "t",
        "vanilla",
        "  parameters:    1,727,284",
        "  accuracy (%):  74.10",
        "  latency (ms):  12.34",
        "  increment (%): +0.0 (-1.2 to +1.3)",
        "  scheme:        00-00",
        "EAN",
        "  parameters:    1,946,132",
        "  latency (ms):  100.00",
        "  increment (%): +90.0 (+80.0 to +100.0)",
        f"  scheme:        {LONG}",
    ]
    assert max(map(len, on_terminal([long.cells()], 30))) <= 30


def test_the_metric_that_a_task_is_judged_by_comes_from_the_task():
    assert headline({"aAcc": 79.25, "mIoU": 17.95}) == ("mIoU", 17.95)
    assert headline({"NAE": 0.1, "MAE": 11.2}) == ("MAE", 11.2)
    assert headline({"coco/bbox_mAP": 0.4, "coco/bbox_mAP_50": 0.6}) == ("coco/bbox_mAP", 0.4)


def test_metrics_have_the_units_of_their_tasks():
    assert metric_texts({"epoch": 3, "count/MAE": 12.345, "mIoU": 30.1, "accuracy/top5": 91.0, "other": 1}) == [
        "MAE 12.35 people",
        "mIoU 30.10 %",
        "top-5 accuracy 91.00 %",
        "other 1.00",
    ]

from dataclasses import replace
from itertools import pairwise

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from ean_core import ConnectionScheme
from ean_core.show.figures import (
    COLOURS,
    EMPTY,
    draw_increments,
    draw_network,
    draw_schemes,
    draw_trade,
    increment_figure,
    network_figure,
    trade_figure,
)
from ean_core.show.table import NetworkRow

SCHEMES = {"vanilla": "000-0000", "Share-full": "111-1111", "EAN": "010-0011"}
ROWS = [
    NetworkRow(name, ConnectionScheme.parse(text), 1000 + 100 * k, 70.0 + k, 0.01, 0.1 * k)
    for k, (name, text) in enumerate(SCHEMES.items())
]


def write(path):
    trade_figure(ROWS, "ResNet20-SE on digits", path)
    return path


@pytest.fixture
def axes():
    return Figure().subplots()


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_figure_is_written_whole_and_nothing_else(tmp_path, suffix):
    path = write(tmp_path / "new" / "folder" / f"figure{suffix}")
    assert path.stat().st_size > 1000
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.size == (1050, 840)


@pytest.mark.parametrize("draw", [trade_figure, increment_figure])
def test_names_and_titles_are_no_formulas_and_hide_nothing(tmp_path, draw):
    rows = [replace(ROWS[0], name=r"$\frac{"), replace(ROWS[1], name="$a$\u202e\x1b[31m"), ROWS[2]]
    draw(rows, r"cost $x_1$ \$ and $\badmacro{", tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    for shown in (r"$\frac{", r"$a$\u202e\x1b[31m", r"cost $x_1$ \$ and $\badmacro{"):
        assert f">{shown}</text>" in text


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_equal_data_make_equal_files(tmp_path, suffix):
    first, second = (write(tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert first == second


def test_other_data_make_another_file(tmp_path):
    base = write(tmp_path / "a.svg").read_bytes()
    trade_figure([*ROWS[:2], NetworkRow(**{**vars(ROWS[2]), "accuracy": 71.0})], "t", tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_bytes() != base


def test_svg_text_stays_text(tmp_path):
    text = write(tmp_path / "figure.svg").read_text()
    for expected in ("ResNet20-SE on digits", "Share-full", "relative inference time increment (%)"):
        assert f">{expected}<" in text


def test_a_figure_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
    path = write(tmp_path / "figure.svg")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="unknown has no accuracy or no increment"):
        trade_figure([NetworkRow("unknown", ROWS[0].scheme, 10)], "t", path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_format_is_refused_without_leavings(tmp_path):
    with pytest.raises(ValueError, match="xyz"):
        write(tmp_path / "figure.xyz")
    assert list(tmp_path.iterdir()) == []


def test_a_scheme_is_a_row_of_squares_filled_where_connected(axes):
    draw_schemes({name: ConnectionScheme.parse(text) for name, text in SCHEMES.items()}, axes)
    assert len(axes.patches) == 3 * 7
    for row, (text, colour) in enumerate(zip(SCHEMES.values(), COLOURS, strict=False)):
        squares = axes.patches[7 * row : 7 * row + 7]
        drawn = [to_hex(square.get_facecolor()).upper() for square in squares]
        assert drawn == [colour if bit == "1" else EMPTY for bit in text.replace("-", "")]
        steps = [b.get_x() - a.get_x() for a, b in pairwise(squares)]
        assert steps == [1, 1, 1.5, 1, 1, 1]  # a gap between the stages
        assert len({square.get_y() for square in squares}) == 1
    assert [text.get_text() for text in axes.texts] == list(SCHEMES)


def test_constant_gates_are_outlined_with_a_legend(axes):
    draw_schemes({"folded": ConnectionScheme.parse("1c0-c1")}, axes)
    looks = [(to_hex(s.get_facecolor()).upper(), s.get_linewidth() > 0) for s in axes.patches]
    assert looks == [{"1": (COLOURS[0], False), "c": (EMPTY, True), "0": (EMPTY, False)}[mark] for mark in "1c0c1"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["connected", "constant gate"]
    network = Figure().subplots()
    draw_network(ConnectionScheme.parse("1c0-c00"), "SE", network)
    assert len([line for line in network.lines if line.get_linewidth() == 2]) == 1
    outlined = [patch for patch in network.patches if patch.get_linewidth() > 0]
    assert [to_hex(patch.get_edgecolor()).upper() for patch in outlined] == [*COLOURS[:2]]


def test_circles_are_at_increment_and_accuracy_and_as_large_as_the_networks(axes):
    draw_trade(ROWS, axes)
    places = [float(value) for circle in axes.collections for value in circle.get_offsets()[0]]
    assert places == pytest.approx([0, 70, 10, 71, 20, 72])
    sizes = [float(circle.get_sizes()[0]) for circle in axes.collections]
    assert sizes == pytest.approx([500 * row.parameters / 1200 for row in ROWS])


def test_more_networks_than_colours_are_drawn(axes):
    draw_trade([NetworkRow(str(k), ROWS[0].scheme, 10, 70.0, increment=0.0) for k in range(8)], axes)
    assert len(axes.collections) == 8


def test_a_network_shows_a_line_for_each_connection_and_a_module_for_each_stage(tmp_path):
    axes = Figure().subplots()
    draw_network(ConnectionScheme.parse("010-0010-110011-000"), "SE", axes)
    modules = [text for text in axes.texts if text.get_text() == "SE"]
    assert len(modules) == 4
    coloured = [to_hex(line.get_color()).upper() for line in axes.lines if line.get_linewidth() == 2]
    assert coloured == [COLOURS[0], COLOURS[1], *[COLOURS[2]] * 4]


def test_increments_are_points_with_their_intervals_one_line_a_network(tmp_path):
    rows = [
        NetworkRow(**{**vars(row), "increment_interval": (row.increment - 0.02, row.increment + 0.03)}) for row in ROWS
    ]
    axes = Figure().subplots()
    draw_increments(rows, axes)
    spans = [line for line in axes.lines if line.get_linewidth() == 3]
    assert [tuple(line.get_xdata()) for line in spans] == [pytest.approx((10 * k - 2, 10 * k + 3)) for k in range(3)]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(SCHEMES)
    increment_figure(rows, "t", tmp_path / "increments.svg")
    assert ">Share-full<" in (tmp_path / "increments.svg").read_text()
    with pytest.raises(ValueError, match="unknown has no increment to draw"):
        draw_increments([NetworkRow("unknown", ROWS[0].scheme, 10)], axes)


@pytest.mark.parametrize("scheme", ["1", "none", "full"])
def test_any_network_can_be_drawn(scheme, tmp_path):
    stages = (1,) if scheme == "1" else (18, 18, 18)
    network_figure(ConnectionScheme.parse(scheme, stages), "DIA", tmp_path / "network.svg")
    assert ">DIA<" in (tmp_path / "network.svg").read_text()

"""Figure 1: points and their labels."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from ean_core.report.results import read_results
from ean_core.report.rows import table_rows
from ean_core.report.trade import _draw, _write_names, panels, panels_figure, trade_points

from .drawn import save_run, save_timing


@pytest.fixture
def points(tmp_path):
    for seed, accuracy in ((0, 65.0), (1, 66.0)):
        save_run(tmp_path / f"ean{seed}", seed=seed, accuracy=accuracy)
    save_run(tmp_path / "plain", scheme="000-000-000", accuracy=64.0)
    save_run(tmp_path / "untimed", scheme="111-111-111")
    rows = [
        ("010-100-000", "SE", "eager", 0.1),
        ("010-100-000", "SE", "deployed", 0.02),
        ("000-000-000", "SE", "eager", 0.0),
        ("000-000-000", "SE", "deployed", 0.0),
    ]
    save_timing(tmp_path / "time", rows)
    return trade_points(table_rows(read_results([tmp_path]), 1))


def test_points_are_the_networks_that_were_timed_ours_and_the_papers(points):
    ours = [point for point in points if point.source == "here"]
    assert [(point.connection, point.attention, point.form, point.increment) for point in ours] == [
        ("vanilla", "", "eager", 0.0),
        ("EAN", "SE", "eager", 10.0),
        ("EAN", "SE", "deployed", 2.0),
    ]
    assert ours[1].accuracy == 65.5
    assert ours[1].deviation == pytest.approx(np.std([65, 66], ddof=1))
    assert (ours[1].low, ours[1].high) == pytest.approx((9.0, 11.0))
    theirs = [point for point in points if point.source == "paper"]
    assert len(theirs) == 9
    assert (theirs[3].connection, theirs[3].parameters, theirs[3].increment) == ("EAN", 1_739_000, 23.52)


def test_a_panel_is_one_data_set_and_network(points):
    titles = [title for title, _ in panels(points)]
    assert titles == ["CIFAR-100, ResNet-20, here, 24 epochs", "CIFAR-100, ResNet-164, the paper"]


def test_other_recipes_have_panels_of_their_own_and_borrowed_times_a_mark(tmp_path):
    save_run(tmp_path / "short", epochs=2, accuracy=30.0)
    save_run(tmp_path / "own")
    save_run(tmp_path / "rate", lr=0.3)
    save_timing(tmp_path / "own", [("010-100-000", "SE", "eager", 0.1)])
    ours = [point for point in trade_points(table_rows(read_results([tmp_path]), 1)) if point.source == "here"]
    found = dict(panels(ours))
    assert sorted(found) == [
        "CIFAR-100, ResNet-20, here, 2 epochs, recipe A",
        "CIFAR-100, ResNet-20, here, 24 epochs, recipe A",
        "CIFAR-100, ResNet-20, here, 24 epochs, recipe B",
    ]
    assert sorted((point.epochs, point.timed) for point in ours) == [
        ("2", f"† {tmp_path}/own/timing.json"),
        ("24", "own folder"),
        ("24", f"† {tmp_path}/own/timing.json"),
    ]
    panels_figure(ours, tmp_path / "figure.svg")
    names = re.findall(r">(EAN†?)</text>", (tmp_path / "figure.svg").read_text())
    assert sorted(names) == ["EAN", "EAN†", "EAN†"]


def test_circles_have_the_area_of_their_parameters(points):
    own = [replace(point, parameters=100 * (k + 1)) for k, point in enumerate(points[:3])]
    sizes = _draw(own, Figure().subplots())
    assert sizes == pytest.approx([sizes[2] / 3, 2 * sizes[2] / 3, sizes[2]])


def test_names_do_not_overlap_where_there_is_room(points):
    figure = Figure(figsize=(6, 4), dpi=100)
    axes = figure.subplots()
    theirs = [point for point in points if point.source == "paper"]
    sizes = _draw(theirs, axes)
    figure.draw_without_rendering()
    _write_names(theirs, sizes, axes)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 9
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])
        assert axes.bbox.contains(*box.min)
        assert axes.bbox.contains(*box.max)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_equal_points_make_equal_files(tmp_path, points, suffix):
    for name in "ab":
        panels_figure(points, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_place_without_a_panel_stays_empty(tmp_path, points):
    ours = [point for point in points if point.source == "here"]
    three = [replace(point, data=data) for data in ("one", "two", "three") for point in ours]
    panels_figure(three, tmp_path / "figure.svg")
    assert len(panels(three)) == 3
    assert (tmp_path / "figure.svg").read_text().count('id="matplotlib.axis_') == 2 * 3

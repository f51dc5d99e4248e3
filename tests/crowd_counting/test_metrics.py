import csv
import math

import pytest
from mmengine.registry import METRICS

from tasks.crowd_counting.metrics import CountMetric, count_errors, read_errors


def samples(*rows):
    return [{"name": name, "count": count, "points": points} for name, count, points in rows]


def test_errors_are_those_of_the_definitions():
    found = count_errors([10.0, 0.0, 7.5], [12, 4, 7])
    assert found["MAE"] == pytest.approx((2 + 4 + 0.5) / 3)
    assert found["RMSE"] == pytest.approx(math.sqrt((4 + 16 + 0.25) / 3))
    assert found["NAE"] == pytest.approx((2 / 12 + 4 / 4 + 0.5 / 7) / 3)


def test_pictures_without_people_count_for_all_errors_but_the_relative_one():
    assert count_errors([3.0, 5.0], [0, 4]) == {"MAE": 2.0, "RMSE": math.sqrt(5), "NAE": 0.25}
    assert count_errors([3.0], [0])["NAE"] == 0


@pytest.mark.parametrize(
    ("counts", "truths", "message"),
    [
        ([], [], "expected a count and a truth per image, got 0 and 0"),
        ([1.0], [1, 2], "got 1 and 2"),
        ([1.0, math.nan, math.inf], [1, 2, 3], "2 of 3 counts are not finite, the first nan"),
    ],
)
def test_what_has_no_error_is_refused(counts, truths, message):
    with pytest.raises(ValueError, match=message):
        count_errors(counts, truths)


def test_the_metric_is_named_and_writes_a_line_a_picture(tmp_path):
    metric = METRICS.build({"type": "CountMetric", "csv": str(tmp_path / "counts.csv")})
    assert isinstance(metric, CountMetric)
    metric.process(None, samples(("a, b", 3.25, 5), ("c", 4.0, 3)))
    found = metric.evaluate(2)
    assert found == pytest.approx(
        {"count/MAE": 1.375, "count/RMSE": math.sqrt((1.75**2 + 1) / 2), "count/NAE": 0.3417}, 1e-3
    )
    low, high = metric.intervals["count/MAE"]
    assert 1 == low < 1.375 < high == 1.75  # the bootstrap means of two values
    assert read_errors(tmp_path) == [("a, b", 1.75), ("c", 1.0)]
    assert read_errors(tmp_path / "elsewhere") == []
    lines = list(csv.DictReader((tmp_path / "counts.csv").open()))
    assert lines == [
        {"image": "a, b", "people": "5", "counted": "3.250", "error": "-1.750"},
        {"image": "c", "people": "3", "counted": "4.000", "error": "+1.000"},
    ]
    metric.process(None, samples(("c", 4.0, 3)))
    assert metric.evaluate(1)["count/MAE"] == 1
    assert metric.intervals == {}  # there is none over a single image

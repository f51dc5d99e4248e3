import copy

import pytest
from PIL import Image

from ean_core.report.correlation import correlation_figure

FOUND = {"pearson": 0.812, "pearson_interval": [0.3, 0.95], "spearman": -0.25, "spearman_interval": [-0.6, 0.2]}
RECORD = {
    "epochs": 5,
    "standard_error": 1.5,
    "correlations": {"supernet": FOUND, "recalibrated": {**FOUND, "pearson": 0.91}},
    "schemes": [
        {"scheme": "100-010", "alone": 70.0 + k, "supernet": 20.0 + k**2, "recalibrated": 60.0 - k} for k in range(4)
    ],
}


def write(path, record=RECORD):
    correlation_figure(record, path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_figure_is_written_whole_and_nothing_else(tmp_path, suffix):
    path = write(tmp_path / "new" / f"correlation{suffix}")
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    if suffix == ".png":
        with Image.open(path) as image:
            assert image.size == (1200, 600)


def test_both_correlations_are_named_with_their_intervals(tmp_path):
    text = write(tmp_path / "correlation.svg").read_text()
    for expected in (
        "supernet as trained",
        "batch norms re-estimated",
        "Pearson 0.81 (0.30 to 0.95)",
        "Pearson 0.91 (0.30 to 0.95)",
        "Spearman -0.25 (-0.60 to 0.20)",
        "stand-alone accuracy, 5 epochs (%)",
    ):
        assert f">{expected}<" in text


@pytest.mark.parametrize("field", ["alone", "supernet", "recalibrated"])
def test_each_value_is_drawn(tmp_path, field):
    other = copy.deepcopy(RECORD)
    other["schemes"][2][field] += 1
    assert write(tmp_path / "a.svg").read_bytes() != write(tmp_path / "b.svg", other).read_bytes()


def test_equal_data_make_equal_files(tmp_path):
    first, second = (write(tmp_path / f"{name}.svg").read_bytes() for name in "ab")
    assert first == second


def test_a_record_that_lacks_something_leaves_the_old_figure(tmp_path):
    path = write(tmp_path / "correlation.png")
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write(path, {**RECORD, "correlations": {"supernet": FOUND}})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

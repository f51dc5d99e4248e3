import csv
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from ean_core import ConnectionScheme
from ean_core.search.correlate import correlation, sample_schemes
from tasks.cli import main

CONFIG = "search_resnet20_se_digits"
SMALL = ("search.finalists.images=100",)

integers = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=12)  # ties are common
tenths = st.integers(-1000, 1000).map(lambda number: number / 10)
floats = st.lists(st.tuples(tenths, tenths), min_size=3, max_size=12)


# ---------------------------------------------------------------- the coefficients


@settings(max_examples=60, deadline=None)
@given(integers | floats, st.integers(0, 5))
def test_coefficients_are_scipys_ties_included(pairs, seed):
    first, second = (list(map(float, values)) for values in zip(*pairs, strict=True))
    if 1 in (len(set(first)), len(set(second))):
        return
    found = correlation(first, second, seed)
    assert found.pearson == pytest.approx(stats.pearsonr(first, second).statistic, abs=1e-6)
    assert found.spearman == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-6)
    assert found.count == len(pairs)
    for low, high in (found.pearson_interval, found.spearman_interval):
        assert -1 - 1e-9 <= low <= high <= 1 + 1e-9


def test_intervals_are_those_of_a_bootstrap():
    draws = np.random.default_rng(7)
    first = draws.normal(size=40)
    second = 0.8 * first + 0.6 * draws.normal(size=40)
    found = correlation(first, second)
    for interval, statistic in (
        (found.pearson_interval, lambda x, y: np.corrcoef(x, y)[0, 1]),
        (found.spearman_interval, lambda x, y: np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]),
    ):
        expected = stats.bootstrap(
            (first, second),
            statistic,
            paired=True,
            vectorized=False,
            n_resamples=1000,
            method="percentile",
            random_state=np.random.default_rng(1),
        ).confidence_interval
        assert interval == pytest.approx(tuple(expected), abs=0.05)


def test_intervals_depend_on_the_seed_alone():
    first, second = np.random.default_rng(0).normal(size=(2, 12)).tolist()
    assert correlation(first, second, 3) == correlation(first, second, 3)
    assert correlation(first, second, 3) != correlation(first, second, 4)


def test_a_perfect_order_has_an_interval_of_one_point():
    found = correlation([1, 2, 3, 4], [1, 2, 4, 90])
    assert found.spearman == pytest.approx(1)
    assert found.spearman_interval == pytest.approx((1, 1))
    assert correlation([1, 2, 3, 4], [-2, -4, -6, -8]).pearson_interval == pytest.approx((-1, -1))


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3], [5, 5, 5]), ([1, 2], [3, 4]), ([], [])],
    ids=["first constant", "second constant", "two pairs", "none"],
)
def test_what_has_no_correlation_is_refused(first, second):
    with pytest.raises(ValueError, match="a correlation needs at least 3 pairs whose values differ, got"):
        correlation(first, second)


def test_measurements_of_different_lengths_are_refused():
    with pytest.raises(ValueError):
        correlation([1, 2, 3], [1, 2, 3, 4])


# ---------------------------------------------------------------- the schemes


def test_schemes_are_different_and_drawn_by_seed_alone():
    chosen = sample_schemes((3, 3, 3), 50, seed=0)
    assert len(set(chosen)) == 50
    assert chosen == sample_schemes((3, 3, 3), 50, seed=0)
    assert chosen[:5] == sample_schemes((3, 3, 3), 5, seed=0)  # fewer are the first of more
    assert chosen != sample_schemes((3, 3, 3), 50, seed=1)
    assert 0.4 < sum(scheme.sparsity for scheme in chosen) / 50 < 0.6


def test_all_schemes_can_be_had_and_no_more():
    assert len(set(sample_schemes((1, 2), 8, seed=0))) == 8
    for count in (2, 9):
        with pytest.raises(ValueError, match=rf"stages \(1, 2\) takes 3 to 8 schemes, got {count}"):
            sample_schemes((1, 2), count, seed=0)


# ---------------------------------------------------------------- the command


def words(supernet, work_dir, schemes=3, *more, options=()):
    given = [*SMALL, f"search.scores={work_dir.parent / 'scores'}", *options]
    command = ["search", "correlate", CONFIG, "--supernet", supernet, "--work-dir", work_dir, "--schemes", schemes]
    return [str(word) for word in (*command, *more, "--cfg-options", *given)]


@pytest.fixture(scope="module")
def correlated(digits_supernet, tmp_path_factory):
    """The folder of three schemes trained alone for an epoch."""
    folder = tmp_path_factory.mktemp("correlated") / "run"
    with pytest.raises(SystemExit) as ended:
        main([*words(digits_supernet, folder, 3, "--epochs", 1)])
    assert ended.value.code == 0
    return folder


@pytest.fixture
def again(correlated, tmp_path):
    shutil.copytree(correlated.parent, tmp_path / "copy")
    return tmp_path / "copy" / "run"


def checkpoints(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("epoch_*.pth")}


def test_each_scheme_is_trained_alone_and_set_against_the_supernets_scores(correlated, digits_supernet):
    record = json.loads((correlated / "correlation.json").read_text())
    rows = record["schemes"]
    assert [row["scheme"] for row in rows] == [str(scheme) for scheme in sample_schemes((3, 3, 3), 3, 0)]
    for row in rows:
        run = json.loads((correlated / row["scheme"] / "record.json").read_text())
        assert run["settings"]["model"]["backbone"]["scheme"] == row["scheme"]
        assert "scheme" not in run["settings"]["default_hooks"]  # no random schemes
        assert (run["epochs"], run["validation"]["accuracy/top1"]) == (1, row["alone"])
        assert row["connections"] == ConnectionScheme.parse(row["scheme"]).connections
        assert row["supernet"] != row["recalibrated"]
    assert (record["kind"], record["config"], record["epochs"]) == ("correlation", CONFIG, 1)
    for name in ("supernet", "recalibrated"):
        expected = stats.spearmanr([row[name] for row in rows], [row["alone"] for row in rows]).statistic
        assert record["correlations"][name]["spearman"] == pytest.approx(expected)
    table = list(csv.DictReader((correlated / "correlation.csv").open()))
    assert [{name: float(row[name]) for name in ("alone", "supernet", "recalibrated")} for row in table] == [
        {name: row[name] for name in ("alone", "supernet", "recalibrated")} for row in rows
    ]
    with Image.open(correlated / "correlation.png") as image:
        assert image.size[0] > 500


def test_what_is_trained_is_not_trained_again(again, digits_supernet, ean):
    before = checkpoints(again)
    record = json.loads((again / "correlation.json").read_text())
    code, out = ean(*words(digits_supernet, again, 3, "--epochs", 1, "--resume"))
    assert code == 0
    assert checkpoints(again) == before
    assert json.loads((again / "correlation.json").read_text())["schemes"] == record["schemes"]
    assert out.count("over 3 schemes") == 2
    assert "supernet: Pearson " in out


def test_one_that_was_interrupted_is_trained_and_gives_what_it_gave(again, digits_supernet, ean):
    record = json.loads((again / "correlation.json").read_text())
    lost = record["schemes"][1]["scheme"]
    for path in [*(again / lost).glob("epoch_*"), again / lost / "record.json"]:
        path.unlink()
    kept = checkpoints(again)
    assert len(kept) == 2
    assert ean(*words(digits_supernet, again, 3, "--epochs", 1, "--resume"))[0] == 0
    assert kept.items() < checkpoints(again).items()
    assert json.loads((again / "correlation.json").read_text())["schemes"] == record["schemes"]


def test_runs_that_are_there_are_not_overwritten(again, digits_supernet, ean):
    before = checkpoints(again)
    code, _ = ean(*words(digits_supernet, again, 3, "--epochs", 1))
    assert code.startswith("ean search correlate: ")
    assert "add --resume" in code
    assert checkpoints(again) == before


def test_runs_of_other_epochs_are_not_taken_for_these(again, digits_supernet, ean):
    """They are trained further or refused; a record never says epochs that a run did not have."""
    code, _ = ean(*words(digits_supernet, again, 3, "--epochs", 2, "--resume"))
    record = json.loads((again / "correlation.json").read_text())
    trained = {json.loads(path.read_text())["epochs"] for path in again.glob("*/record.json")}
    assert code != 0 or trained == {2}
    assert trained == {record["epochs"]}


def test_runs_of_other_settings_are_not_taken_for_these(again, digits_supernet, ean):
    options = ("optim_wrapper.optimizer.lr=0.05",)
    code, _ = ean(*words(digits_supernet, again, 3, "--epochs", 1, "--resume", options=options))
    assert code != 0
    assert "optim_wrapper.optimizer.lr is 0.2 there, 0.05 here" in code


@pytest.mark.parametrize(("flag", "value"), [("--schemes", 2), ("--epochs", 0)])
def test_too_few_are_a_usage_error(digits_supernet, tmp_path, ean, flag, value):
    command = ["search", "correlate", CONFIG, "--supernet", digits_supernet, "--work-dir", tmp_path, flag, value]
    assert ean(*command)[0] == 2
    assert list(tmp_path.iterdir()) == []

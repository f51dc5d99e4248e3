import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ean_core.search.correlate import correlation, sample_schemes

integers = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=12)  # ties are common
tenths = st.integers(-1000, 1000).map(lambda number: number / 10)
floats = st.lists(st.tuples(tenths, tenths), min_size=3, max_size=12)


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
    with pytest.raises(ValueError, match="a correlation needs at least 3 pairs with different values, got"):
        correlation(first, second)


def test_measurements_of_different_lengths_are_refused():
    with pytest.raises(ValueError):
        correlation([1, 2, 3], [1, 2, 3, 4])


def test_schemes_are_different_and_drawn_by_seed_alone():
    chosen = sample_schemes((3, 3, 3), 50, seed=0)
    assert len(set(chosen)) == 50
    assert chosen == sample_schemes((3, 3, 3), 50, seed=0)
    assert chosen[:5] == sample_schemes((3, 3, 3), 5, seed=0)  # a smaller sample is a prefix of a larger one
    assert chosen != sample_schemes((3, 3, 3), 50, seed=1)
    assert 0.4 < sum(scheme.sparsity for scheme in chosen) / 50 < 0.6


def test_all_schemes_can_be_had_and_no_more():
    assert len(set(sample_schemes((1, 2), 8, seed=0))) == 8
    for count in (2, 9):
        with pytest.raises(ValueError, match=rf"stages \(1, 2\) takes 3 to 8 schemes, got {count}"):
            sample_schemes((1, 2), count, seed=0)

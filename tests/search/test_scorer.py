"""Scores and their errors from numbers per image, for the kinds of metrics that tasks have."""

import numpy as np
import pytest
from torch import nn

from ean_core.common.tasks import Metric
from ean_core.search.scorer import Difference, MeanScorer, Score, SumScorer, scorer_of

ERROR = Metric("count/MAE", "MAE", "people", less_is_better=True)
SHARE = Metric("mIoU", "mIoU", "%")


class Mean(MeanScorer):
    def rows(self, data):
        raise NotImplementedError

    def per_image(self, rows):
        return np.abs(rows[:, 0] - rows[:, 1])


class Ratio(SumScorer):
    def rows(self, data):
        raise NotImplementedError

    def of_sums(self, sums):
        return 100 * sums[..., 0] / sums[..., 1]


def drawn(seed, n=60):
    return np.random.default_rng(seed).integers(1, 50, (n, 2)).astype(float)


def test_a_score_is_a_number_with_its_error():
    assert Score(70.5, 0.3) + 1 == 71.5
    assert Score(70.5, 0.3).standard_error == 0.3


def test_a_mean_has_the_error_of_a_mean_and_paired_differences():
    scorer, first, second = Mean(nn.Identity(), ERROR), drawn(0), drawn(1)
    errors = [np.abs(rows[:, 0] - rows[:, 1]) for rows in (first, second)]
    score = scorer.score(first)
    assert score == errors[0].mean()
    assert score.standard_error == pytest.approx(errors[0].std(ddof=1) / 60**0.5)
    found = scorer.difference(first, second)
    assert found.value == pytest.approx(errors[0].mean() - errors[1].mean())
    assert found.standard_error == pytest.approx((errors[0] - errors[1]).std(ddof=1) / 60**0.5)
    assert found.interval is None
    # paired: images that are hard for both do not blur the difference
    shifted = first + [[0.5, 0]] * np.sign(first[:, :1] - first[:, 1:])
    assert scorer.difference(shifted, first).standard_error < 0.2 * score.standard_error


def test_a_ratio_of_sums_has_bootstrap_errors_and_an_interval():
    scorer, first, second = Ratio(nn.Identity(), SHARE), drawn(0), drawn(1)
    score = scorer.score(first)
    assert score == 100 * first[:, 0].sum() / first[:, 1].sum()
    # leave-one-out estimates, which agree with a bootstrap on smooth ratios
    left_out = np.array([scorer.value(np.delete(first, n, 0)) for n in range(60)])
    jackknife = (59 / 60 * ((left_out - left_out.mean()) ** 2).sum()) ** 0.5
    assert score.standard_error == pytest.approx(jackknife, rel=0.15)
    found = scorer.difference(first, second)
    low, high = found.interval
    assert low < found.value == scorer.value(first) - scorer.value(second) < high
    assert high - low == pytest.approx(2 * 1.96 * found.standard_error, rel=0.15)
    assert scorer.difference(first, second) == found  # the same resamples every time
    assert scorer.difference(first, first) == Difference(0.0, 0.0, (0.0, 0.0))


def test_a_network_that_no_task_scores_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="a search scores classifiers and counters and segmentors; Linear is none"):
        scorer_of(nn.Linear(1, 1))


def test_one_image_is_too_few():
    with pytest.raises(ValueError, match="at least 2 validation images, got 1"):
        Mean(nn.Identity(), ERROR).check([0])

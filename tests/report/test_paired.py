"""Paired statistics, against values worked out by hand."""

import math

import numpy as np
import pytest

from ean_core.common.intervals import Interval
from ean_core.report.paired import McNemar, images_needed, over_images, over_seeds, seeds_needed, two_samples


def flags(text):
    return np.array([digit == "1" for digit in text])


def pair(b, c, both, neither):
    """Two classifiers of which b images only the first, and c images only the second got right."""
    return flags("1" * b + "0" * c + "1" * both + "0" * neither), flags("0" * b + "1" * c + "1" * both + "0" * neither)


def test_mcnemar_counts_the_images_that_one_alone_got_right():
    assert McNemar.of(flags("110010"), flags("011110")) == (1, 2)
    assert McNemar.of(*pair(10, 2, 60, 28)) == McNemar(10, 2)


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (10, 2, 2 * (1 + 12 + 66) / 4096),  # 2 P(at most 2 of 12)
        (2, 10, 2 * (1 + 12 + 66) / 4096),
        (6, 0, 2 / 64),
        (5, 5, 1.0),
        (1, 0, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemars_p_is_exact_and_two_sided(b, c, p):
    assert McNemar(b, c).p == pytest.approx(p, rel=1e-12)


def test_the_interval_over_images_adds_half_an_image_to_each_count():
    found = over_images(*([each] for each in pair(10, 2, 60, 28)))
    # 10.5 - 2.5 of 102 images, and 13 of them with a difference
    center, error = 8 / 102, math.sqrt(13 - 8**2 / 102) / 102
    assert found == pytest.approx((8.0, 100 * (center - 1.96 * error), 100 * (center + 1.96 * error)))
    assert found == pytest.approx((8.0, 1.0841, 14.6022), abs=1e-4)


def test_the_interval_over_images_of_two_trainings_is_that_of_their_mean_on_each_image():
    ours, theirs = [flags("1111000000"), flags("1110000000")], [flags("0110000000"), flags("0110000001")]
    # differences: 1, 0, 0, 1/2, five times 0, -1/2
    center = 1.0 / 12
    error = math.sqrt(((1 + 0.25 + 0.25) + 1) / 12 - center**2) / math.sqrt(12)
    expected = (10.0, 100 * (center - 1.96 * error), 100 * (center + 1.96 * error))
    assert over_images(ours, theirs) == pytest.approx(expected)


def test_networks_that_agree_on_every_image_are_not_known_to_be_equal():
    right = flags("1" * 390 + "0" * 10)
    found = over_images([right], [right])
    assert found == pytest.approx((0, -100 * 1.96 / 402, 100 * 1.96 / 402))


def test_the_interval_over_images_holds_as_often_as_it_says():
    # Of 2,000 images of 2,000 samples, 6 and 4 % differ in either direction.
    draws = np.random.default_rng(0).choice(4, (2000, 2000), p=(0.06, 0.04, 0.6, 0.3))
    held = 0
    for draw in draws:
        found = over_images([(draw == 0) | (draw == 2)], [(draw == 1) | (draw == 2)])
        held += found.low <= 2.0 <= found.high
    assert 0.94 <= held / 2000 <= 0.965


def test_the_interval_over_seeds_is_students():
    # 4.302653 is the 97.5 % quantile with two degrees of freedom, 12.7062 with one
    assert over_seeds([1.0, 1.2, 0.8]) == pytest.approx((1.0, 1 - 4.302653 * 0.2 / 3**0.5, 1 + 4.302653 * 0.2 / 3**0.5))
    assert over_seeds([0.3, 0.5]) == pytest.approx((0.4, 0.4 - 12.7062 * 0.1, 0.4 + 12.7062 * 0.1), abs=1e-5)
    assert over_seeds([0.3, 0.3, 0.3]) is None
    assert over_seeds([]) is None


def test_two_samples_have_the_errors_of_both():
    half = 1.96 * math.sqrt(0.65 * 0.35 / 1e4 + 0.66 * 0.34 / 1e4)
    assert two_samples(66.0, 65.0, 10_000) == pytest.approx((1.0, 1 - 100 * half, 1 + 100 * half))


def test_the_images_needed_narrow_the_interval_to_its_distance_from_the_bound():
    assert images_needed(Interval(0.1, -0.7, 0.9), -1.0, 10_000) == 5300  # (0.8 / 1.1)^2 of 10,000, rounded up
    assert images_needed(Interval(0.1, -0.7, 0.9), 0.0, 10_000) == 640_000
    assert images_needed(Interval(-0.1, -0.7, 0.5), 0.0, 10_000) is None
    assert images_needed(Interval(1.0, -1.0, 3.0), 0.0, 2) == 8


def test_the_seeds_needed_are_the_fewest_whose_interval_would_lie_above_the_bound():
    gaps = [0.1, 0.5, 0.9]  # deviation 0.4
    assert seeds_needed(gaps, 0.0) == 5  # 2.776445 * 0.4 / sqrt(5) = 0.497; with four, 3.182446 * 0.4 / 2 = 0.636
    assert seeds_needed(gaps, 0.5) is None
    assert seeds_needed([-9.0, 0.0, 9.01], 0.0) is None  # more than anyone trains

"""Intervals of means over images."""

import numpy as np
import pytest

from ean_core.common.intervals import mean_interval


def test_the_interval_is_seeded_and_about_two_standard_errors_wide():
    values = np.random.default_rng(1).normal(10, 4, 400).tolist()
    found = mean_interval(values)
    assert found == mean_interval(values)
    assert found.mean == pytest.approx(np.mean(values))
    error = np.std(values) / 20
    assert found.mean - found.low == pytest.approx(1.96 * error, rel=0.05)
    assert found.high - found.mean == pytest.approx(1.96 * error, rel=0.05)
    with pytest.raises(ValueError, match="expected a value per image"):
        mean_interval([])

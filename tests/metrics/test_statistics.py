"""The bootstrap interval: deterministic, and that of the normal distribution where it must be."""

import numpy as np
import pytest

from voxlab.metrics import statistics
from voxlab.metrics.statistics import bootstrap_interval


def test_equal_input_gives_equal_numbers(monkeypatch):
    values = np.random.default_rng(0).normal(size=50).tolist()
    first = bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) == first
    assert bootstrap_interval(values, seed=4) != first
    monkeypatch.setattr(statistics, "_BLOCK", 50 * 7)
    assert bootstrap_interval(values, seed=3) == pytest.approx(first)


def test_the_interval_of_many_values_is_the_normal_one():
    values = np.random.default_rng(1).normal(5, 2, size=400)
    low, high = bootstrap_interval(values.tolist(), resamples=4000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.12 * half)


def test_constants_weights_and_nothing():
    assert bootstrap_interval([2.5] * 4) == (2.5, 2.5)
    assert bootstrap_interval([0.3]) == (0.3, 0.3)
    assert bootstrap_interval([0.2, 0.2], weights=[1, 9]) == pytest.approx((0.2, 0.2))
    low, high = bootstrap_interval([0.0, 1.0], weights=[1, 3])
    assert (low, high) == (0, 1)
    values = np.random.default_rng(2).normal(size=20).tolist()
    assert bootstrap_interval(values, weights=[2.0] * 20) == pytest.approx(bootstrap_interval(values))
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([])

"""Platt's line against a slow optimiser, calibration error by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from voxlab.metrics.calibration import Platt, brier, fit_platt, log_loss, reliability
from voxlab.metrics.events import logit_of, sigmoid


def make_scores(size=20_000, seed=0):
    generator = np.random.default_rng(seed)
    logit = generator.normal(-5, 2, size)
    y = generator.random(size) < sigmoid(logit)
    return (0.4 * logit + 1.5).astype(np.float32), y


def test_the_line_is_that_of_a_slow_optimiser_and_of_scikit_learn():
    raw, y = make_scores()

    def loss(line):
        z = line[0] * raw.astype(float) + line[1]
        return np.mean(np.logaddexp(0, z) - z * y) + 0.5e-4 * line[0] ** 2

    slow = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000}).x
    platt = fit_platt(raw, y)
    assert (platt.slope, platt.intercept) == pytest.approx(tuple(slow), abs=1e-5)
    oracle = LogisticRegression(C=1 / (1e-4 * len(y)), tol=1e-10, max_iter=1000).fit(raw[:, None], y)
    assert (platt.slope, platt.intercept) == pytest.approx((oracle.coef_[0, 0], oracle.intercept_[0]), abs=1e-3)
    assert platt.slope == pytest.approx(2.5, rel=0.1)


def test_calibrated_probabilities_have_the_mean_of_the_labels():
    raw, y = make_scores()
    assert fit_platt(raw, y).probability(raw).mean() == pytest.approx(y.mean(), rel=1e-6)


def test_extreme_scores_and_separable_classes():
    raw, y = np.array([-60, -50, 55, 60], np.float32), np.array([False, False, True, True])
    platt = fit_platt(raw, y)
    assert 0 < platt.slope < 1
    assert np.isfinite([platt.slope, platt.intercept]).all()


def test_the_order_of_scores_is_kept_even_of_bad_ones():
    raw, y = make_scores()
    platt = fit_platt(-raw, y)
    assert platt.slope == pytest.approx(1e-3)
    assert platt.probability(-raw).mean() == pytest.approx(y.mean(), rel=1e-6)


@pytest.mark.parametrize("y", [np.zeros(3, bool), np.ones(3, bool), np.zeros(0, bool)])
def test_a_single_class_gives_no_line_but_a_reason(y):
    platt = fit_platt(np.zeros(len(y), np.float32), y)
    assert (platt.slope, platt.intercept) == (1, 0)
    assert "positives among" in platt.reason


def test_the_line_goes_there_and_back():
    platt = Platt(0.5, -1.0)
    assert platt.raw(float(platt.logit(3.25))) == pytest.approx(3.25)
    assert Platt(**platt.record()) == platt
    assert float(logit_of(platt.probability(2.0))) == pytest.approx(0.0)


def test_calibration_error_by_hand():
    probability = np.array([0.1, 0.1, 0.3, 0.5, 0.7, 0.9])
    y = np.array([0, 1, 0, 0, 1, 1], bool)
    bins = reliability(probability, y, bins=3)
    np.testing.assert_allclose(bins.probability, [0.1, 0.4, 0.8])
    np.testing.assert_allclose(bins.frequency, [0.5, 0, 1])
    assert bins.error == pytest.approx((0.4 + 0.4 + 0.2) / 3)
    uneven = reliability(probability[:5], y[:5], bins=2)
    assert uneven.frames.tolist() == [3, 2]
    assert uneven.error == pytest.approx((3 * abs(0.5 / 3 - 1 / 3) + 2 * abs(0.6 - 0.5)) / 5)
    assert np.isnan(reliability(probability[:0], y[:0]).error)


def test_losses_are_those_of_scikit_learn():
    raw, y = make_scores(500)
    assert log_loss(raw, y) == pytest.approx(metrics.log_loss(y, sigmoid(raw)), rel=1e-9)
    assert brier(sigmoid(raw), y) == pytest.approx(metrics.brier_score_loss(y, sigmoid(raw)), rel=1e-12)
    assert log_loss(np.array([-800.0, 800.0]), np.array([True, True])) == 400
    assert np.isnan(log_loss(raw[:0], y[:0]))
    assert np.isnan(brier(raw[:0], y[:0]))

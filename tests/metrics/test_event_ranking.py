"""AP, AUROC and their curves: hand-made cases, scikit-learn, and mixtures of groups against the obvious way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from voxlab.metrics.events import sigmoid
from voxlab.metrics.ranking import auroc, average_precision, curve, measure_mixtures, rank_table

SCORES = arrays(np.float32, st.integers(4, 60), elements=st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]))


def test_hand_made_cases():
    scores, y = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1], bool)
    assert average_precision(scores, y) == pytest.approx(0.83333, abs=1e-5)
    assert auroc(scores, y) == 0.75
    assert average_precision(np.zeros(4), y) == 0.5
    assert auroc(np.zeros(4), y) == 0.5


def test_absent_classes_are_not_defined():
    for y in (np.zeros(4, bool), np.zeros(0, bool)):
        assert np.isnan(average_precision(np.zeros(len(y)), y))
        assert np.isnan(auroc(np.zeros(len(y)), y))
    assert average_precision(np.zeros(3), np.ones(3, bool)) == 1
    assert np.isnan(auroc(np.zeros(3), np.ones(3, bool)))


def test_probabilities_and_logits_rank_alike():
    generator = np.random.default_rng(0)
    logit = generator.normal(-4, 2, 5000)
    y = generator.random(5000) < sigmoid(logit)
    assert average_precision(sigmoid(logit), y) == average_precision(logit, y)
    assert auroc(sigmoid(logit), y) == auroc(logit, y)


@given(SCORES, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_ties_and_all_are_as_in_scikit_learn(scores, random):
    y = np.array([random.random() < 0.4 for _ in scores])
    y[:2] = True, False
    assert average_precision(scores, y) == pytest.approx(metrics.average_precision_score(y, scores), abs=1e-12)
    assert auroc(scores, y) == pytest.approx(metrics.roc_auc_score(y, scores), abs=1e-12)


def test_curves_are_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    scores = np.round(generator.normal(size=2000), 2).astype(np.float32)
    y = generator.random(2000) < 0.05
    points = curve(scores, y)
    precision, recall, thresholds = metrics.precision_recall_curve(y, scores)
    np.testing.assert_array_equal(points.thresholds[::-1], thresholds)
    np.testing.assert_allclose(points.precision[::-1], precision[:-1])
    np.testing.assert_allclose(points.recall[::-1], recall[:-1])
    fall_out, hits, thresholds = metrics.roc_curve(y, scores, drop_intermediate=False)
    np.testing.assert_allclose(points.fall_out, fall_out[1:])
    np.testing.assert_allclose(points.recall, hits[1:])
    predicted = scores >= points.thresholds[100]
    assert points.f1[100] == pytest.approx(metrics.f1_score(y, predicted))


def test_mixtures_of_groups_are_what_repeated_groups_give():
    generator = np.random.default_rng(2)
    group = generator.integers(6, size=3000)
    scores = np.round(generator.normal(size=3000) + group / 5, 1)
    y = generator.random(3000) < 0.02 + 0.01 * group
    y[group == 5] = False
    weights = generator.integers(0, 3, size=(8, 6))
    weights[-1] = 0, 0, 0, 0, 0, 1
    ap, area = measure_mixtures(rank_table(scores, y, group, 6), weights)
    for row, (found_ap, found_area) in zip(weights[:-1], zip(ap, area, strict=False), strict=False):
        drawn = np.concatenate([np.flatnonzero(group == g) for g in range(6) for _ in range(row[g])])
        assert found_ap == pytest.approx(metrics.average_precision_score(y[drawn], scores[drawn]), abs=1e-12)
        assert found_area == pytest.approx(metrics.roc_auc_score(y[drawn], scores[drawn]), abs=1e-12)
    assert np.isnan(ap[-1])
    assert np.isnan(area[-1])


def test_blocks_do_not_matter(monkeypatch):
    generator = np.random.default_rng(3)
    table = rank_table(generator.normal(size=500), generator.random(500) < 0.1, generator.integers(4, size=500), 4)
    weights = generator.integers(0, 3, size=(20, 4))
    whole = measure_mixtures(table, weights)
    monkeypatch.setattr("voxlab.metrics.ranking._BLOCK", 3 * len(table.scores))
    np.testing.assert_allclose(measure_mixtures(table, weights), whole, rtol=1e-12)

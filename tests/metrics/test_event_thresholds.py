"""The best threshold against brute force, and its spread over resamples against choosing again."""

import numpy as np
import pytest
from sklearn import metrics

from tests.tasks.laughter_scores import make_episode
from voxlab.metrics import alarms
from voxlab.metrics.events import EpisodeScores, Frames, sigmoid
from voxlab.metrics.ranking import rank_table
from voxlab.metrics.thresholds import UnreachableTarget, best_event_threshold, best_frame_threshold, threshold_spread


def make_frames(size, prior=0.005, seed=0, digits=None):
    generator = np.random.default_rng(seed)
    y = generator.random(size) < prior
    logit = (generator.normal(size=size) + 2 * y - 5).astype(np.float32)
    return Frames(logit if digits is None else np.round(logit, digits), y, np.zeros(size, np.int32))


def test_the_best_f1_of_200k_scores_is_that_of_brute_force_and_of_no_grid():
    frames = make_frames(200_000)
    threshold, value = best_frame_threshold(frames, "f1")
    assert value == metrics.f1_score(frames.y, frames.logit >= threshold)
    precision, recall, _ = metrics.precision_recall_curve(frames.y, frames.logit)
    assert value == pytest.approx((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max(), abs=1e-12)
    probability = sigmoid(frames.logit)
    for place in np.linspace(0, 1, 100):
        assert value >= metrics.f1_score(frames.y, probability >= place)


@pytest.mark.parametrize(
    ("objective", "target"),
    [
        *(("f1", None), ("fbeta", 0.5), ("fbeta", 2.0)),
        *(("youden", None), ("recall_at_precision", 0.1), ("precision_at_recall", 0.5)),
    ],
)
def test_every_objective_is_that_of_brute_force_with_the_highest_of_equals(objective, target):
    frames = make_frames(1500, prior=0.05, seed=3, digits=1)
    values = {}
    for threshold in np.unique(frames.logit):
        predicted = frames.logit >= threshold
        precision, recall = metrics.precision_score(frames.y, predicted), metrics.recall_score(frames.y, predicted)
        values[threshold] = {
            "f1": metrics.f1_score(frames.y, predicted),
            "fbeta": metrics.fbeta_score(frames.y, predicted, beta=target or 1),
            "youden": recall - predicted[~frames.y].mean(),
            "recall_at_precision": recall if precision >= (target or 0) else -1,
            "precision_at_recall": precision if recall >= (target or 0) else -1,
        }[objective]
    best = max(values.values())
    expected = max(threshold for threshold, value in values.items() if value > best - 1e-12)
    threshold, value = best_frame_threshold(frames, objective, target)
    assert value == pytest.approx(best, abs=1e-12)
    assert threshold == expected


def test_a_precision_that_no_threshold_reaches():
    frames = Frames(np.array([1, 1, 0], np.float32), np.array([True, False, False]), np.zeros(3, np.int32))
    with pytest.raises(UnreachableTarget, match=r"0\.5"):
        best_frame_threshold(frames, "recall_at_precision", 0.6)


def test_thresholds_for_alarms():
    episodes = [make_episode(number, frames=2000, events=5) for number in range(3)]
    about = {"horizon": 5, "refractory": 25, "line": (1.0, 0.0)}
    scores = np.concatenate([episode.logit[episode.mask] for episode in episodes])
    every = alarms.rank_thresholds(scores, 400)
    rates = alarms.event_rates(alarms.sweep_alarms(episodes, every, 5, 25, (1.0, 0.0)).sum(1))
    assert best_event_threshold(episodes, "event_f1", None, **about) == (every[rates["f1"].argmax()], rates["f1"].max())
    threshold, recall = best_event_threshold(episodes, "fa_per_hour", 30.0, **about)
    place = every.tolist().index(threshold)
    assert rates["fa_per_hour"][place] <= 30
    assert recall == rates["recall"][rates["fa_per_hour"] <= 30].max() > 0
    quiet = [silent(episode) for episode in episodes]
    with pytest.raises(UnreachableTarget, match="fewest false alarms"):
        best_event_threshold(quiet, "fa_per_hour", 1e-3, **about)


def silent(episode: EpisodeScores) -> EpisodeScores:
    """The highest scores far from any event."""
    import dataclasses

    logit = np.zeros_like(episode.logit)
    logit[5] = 9.0
    return dataclasses.replace(episode, logit=logit)


@pytest.mark.parametrize(("objective", "target"), [("f1", None), ("youden", None), ("precision_at_recall", 0.5)])
def test_the_spread_is_that_of_choosing_again_on_each_resample(objective, target):
    frames = make_frames(1200, prior=0.1, seed=5, digits=1)
    group = np.random.default_rng(6).integers(4, size=1200)
    weights = np.random.default_rng(7).integers(0, 3, size=(12, 4))
    weights[0] = 0
    spread = threshold_spread(rank_table(frames.logit, frames.y, group, 4), weights, objective, target)
    assert np.isnan(spread[0])
    for row, found in zip(weights[1:], spread[1:], strict=True):
        drawn = np.concatenate([np.flatnonzero(group == g) for g in range(4) for _ in range(row[g])])
        again = Frames(frames.logit[drawn], frames.y[drawn], np.zeros(len(drawn), np.int32))
        assert found == best_frame_threshold(again, objective, target)[0]

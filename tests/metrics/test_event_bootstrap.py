"""Draws of clusters and their intervals; what an episode of scores must be."""

import dataclasses

import numpy as np
import pytest

from tests.tasks.laughter_scores import make_episode
from voxlab.metrics.bootstrap import draw_counts, interval, number_clusters
from voxlab.metrics.events import logit_of, mean_over_views, pool, sigmoid


def test_draws_hold_as_many_clusters_as_there_are_and_are_repeatable():
    counts = draw_counts(7, resamples=4000, seed=1)
    assert (counts.sum(1) == 7).all()
    np.testing.assert_array_equal(counts, draw_counts(7, resamples=4000, seed=1))
    assert (counts != draw_counts(7, resamples=4000, seed=2)).any()
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1 - 1 / 7, rel=0.05)


def test_clusters_are_numbered_by_name():
    numbers, names = number_clusters(["b", "a", "b"])
    assert numbers.tolist() == [1, 0, 1]
    assert names == ["a", "b"]


def test_the_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(draw_counts(400, resamples=4000, seed=0) @ values / 400)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.12 * half)
    assert np.isnan(interval(np.array([np.nan]))).all()
    assert interval(np.array([np.nan, 2.0])) == (2, 2)


def test_the_mean_over_views_is_that_of_probabilities():
    rows = {0: np.array([-3.0, 30.0, -40.0], np.float32), 1: np.array([1.0, 30.0, -40.0], np.float32)}
    found = mean_over_views(rows)
    assert sigmoid(found[0]) == pytest.approx((sigmoid(-3.0) + sigmoid(1.0)) / 2, rel=1e-6)
    assert found[1:].tolist() == pytest.approx([30, -40], rel=1e-6)
    assert float(logit_of(sigmoid(-30.0))) == pytest.approx(-30)


def test_pooled_frames_are_those_that_count():
    episodes = [make_episode(number, frames=500, events=2) for number in range(3)]
    frames = pool(episodes)
    assert len(frames.y) == sum(int(episode.mask.sum()) for episode in episodes)
    np.testing.assert_array_equal(frames.logit[frames.episode == 1], episodes[1].logit[episodes[1].mask])
    assert len(pool([]).y) == 0


def test_arrays_that_do_not_fit_are_refused():
    episode = make_episode(0, frames=500, events=2)
    with pytest.raises(ValueError, match=r"test-000: y has shape \(499,\) for 500 frames"):
        dataclasses.replace(episode, y=episode.y[1:])
    with pytest.raises(ValueError, match="not bool"):
        dataclasses.replace(episode, mask=episode.mask.astype(np.uint8))
    with pytest.raises(ValueError, match="1 scores are not finite"):
        dataclasses.replace(episode, logit=np.where(np.arange(500) == 3, np.nan, episode.logit))
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        dataclasses.replace(episode, y=episode.y * 0.5)
    assert episode.hours == int(episode.mask.sum()) / 45_000

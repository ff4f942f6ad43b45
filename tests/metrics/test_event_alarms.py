"""Alarms and the events that they announce: a hand-made case, slow loops, and frame by frame against all at once."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tasks.laughter_scores import make_episode
from voxlab.metrics import alarms
from voxlab.metrics.alarms import AlarmRule, AlarmState, event_rates, find_alarms, make_rule, match
from voxlab.metrics.events import sigmoid

LOGITS = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=60).map(np.array)


def test_the_case_by_hand():
    onsets, found = np.array([100, 300, 303, 600]), np.array([97, 99, 250, 299, 596])
    matches = match(found, onsets, 5)
    assert matches.alarm_of.tolist() == [0, 3, -1, 4]
    assert found[matches.false].tolist() == [250]
    assert found[matches.duplicates].tolist() == [99]
    assert matches.leads.mean() == pytest.approx(8 / 3)
    rates = event_rates(alarms.count(matches, 1000 / 12.5 / 3600))
    assert {name: float(rates[name]) for name in ("recall", "precision", "fa_per_hour")} == pytest.approx(
        {"recall": 0.75, "precision": 0.75, "fa_per_hour": 45.0}
    )


def slow_alarms(logit, mask, rule):
    found, armed, last = [], True, None
    for frame, (value, counts) in enumerate(zip(logit, mask, strict=True)):
        if not counts:
            continue
        if value < rule.low:
            armed = True
        if armed and value >= rule.high:
            armed = False
            if last is None or frame - last >= rule.refractory:
                found.append(frame)
                last = frame
    return found


@given(LOGITS, st.integers(0, 9), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_alarms_are_those_of_the_slow_loop(logit, refractory, random):
    mask = np.array([random.random() < 0.8 for _ in logit])
    rule = AlarmRule(0.5, 0.0, refractory)
    assert find_alarms(logit, mask, rule).tolist() == slow_alarms(logit, mask, rule)
    state = AlarmState(rule)
    live = [frame for frame, value in enumerate(logit) if state.step(value)]
    assert live == find_alarms(logit, np.ones(len(logit), bool), rule).tolist()


def test_the_score_has_to_fall_below_four_fifths_of_the_calibrated_threshold():
    rule = make_rule(1.3, 25, slope=0.5, intercept=-2.0)
    assert sigmoid(0.5 * rule.low - 2) == pytest.approx(0.8 * sigmoid(0.5 * 1.3 - 2), rel=1e-12)
    for high in (-40.0, 0.0, 40.0):
        assert sigmoid(make_rule(high, 0).low) == pytest.approx(0.8 * sigmoid(high), rel=1e-12)
    assert make_rule(np.inf, 0).low < np.inf


@given(
    st.lists(st.integers(0, 40), unique=True, max_size=5),
    st.lists(st.integers(0, 40), unique=True, max_size=5),
    st.integers(1, 12),
)
@settings(max_examples=150, deadline=None)
def test_no_assignment_matches_more_events(found, onsets, horizon):
    found, onsets = np.sort(np.array(found, np.int64)), np.sort(np.array(onsets, np.int64))
    matches = match(found, onsets, horizon)

    def fits(alarm, onset):
        return 1 <= onset - alarm <= horizon

    hit = [(found[index], onset) for index, onset in zip(matches.alarm_of, onsets, strict=True) if index >= 0]
    assert all(fits(*pair) for pair in hit)
    assert len({alarm for alarm, _ in hit}) == len(hit)
    best = max(sum(fits(a, o) for a, o in zip(order, onsets, strict=False)) for order in orders(found, len(onsets)))
    assert len(hit) == best
    useless = [not any(fits(alarm, onset) for onset in onsets) for alarm in found]
    assert matches.false.tolist() == useless


def orders(found, length):
    """Every way to give alarms, or none (-1), to so many events."""
    padded = [*found, *[-1000] * length]
    return set(permutations(padded, length)) if length else {()}


def test_sweep_counts_what_each_threshold_does_alone():
    episodes = [make_episode(number, frames=1500, events=4) for number in range(3)]
    scores = np.concatenate([episode.logit[episode.mask] for episode in episodes])
    thresholds = alarms.rank_thresholds(scores, 20)
    assert thresholds[0] == scores.max()
    assert thresholds[-1] == scores.min()
    assert (np.diff(thresholds) < 0).all()
    counts = alarms.sweep_alarms(episodes, thresholds, 5, 25, (1.0, 0.0))
    assert counts.shape == (len(thresholds), 3, 6)
    rule = make_rule(float(thresholds[7]), 25)
    for place, episode in enumerate(episodes):
        alone = match(find_alarms(episode.logit, episode.mask, rule), episode.onsets, 5)
        np.testing.assert_array_equal(counts[7, place], alarms.count(alone, episode.hours))


def test_recall_at_a_rate_of_false_alarms():
    rows = np.array([[1, 4, 0, 0, 1, 0], [2, 4, 3, 0, 1, 0], [4, 4, 8, 0, 1, 0]], dtype=float)
    assert [float(alarms.recall_at(rows, rate)) for rate in (0.5, 3, 5, 8)] == [0.25, 0.5, 0.5, 1.0]
    assert float(alarms.recall_at(rows[1:], 1)) == 0.0
    rows[:, 1] = 0
    assert np.isnan(alarms.recall_at(rows, 5))


def test_rates_that_are_not_defined():
    rates = event_rates(np.zeros(6))
    assert all(np.isnan(value) for value in rates.values())
    rates = event_rates(np.array([0, 3, 0, 0, 1, 0], dtype=float))
    assert (rates["recall"], rates["f1"], rates["fa_per_hour"]) == (0, 0, 0)
    assert np.isnan(rates["precision"])


def test_collar_score_finds_the_most_pairs():
    episode = make_episode(0, frames=2000, events=3)
    rule = AlarmRule(2.0, 1.0, 0)
    found = find_alarms(episode.logit, episode.mask, rule)
    result = alarms.collar_f1([episode], rule, lead=3.0, collar=0.2)
    close = np.abs(found[:, None] + 3.0 - episode.onsets[None]) <= 2.5
    hits = best_pairs(close)
    assert hits > 0
    assert result["precision"] == pytest.approx(hits / len(found))
    assert result["recall"] == pytest.approx(hits / 3)


def best_pairs(allowed):
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return int(allowed[rows, columns].sum())


@given(st.lists(st.integers(0, 60), max_size=8), st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=100, deadline=None)
def test_pairs_are_those_of_the_best_assignment(guessed, true):
    first, second = np.sort(np.array(guessed, float)), np.sort(np.array(true, float))
    close = np.abs(first[:, None] - second[None]) <= 4
    expected = best_pairs(close) if close.size else 0
    assert alarms._count_pairs(first, second, 4.0) == expected

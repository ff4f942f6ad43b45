"""Alarms of a score over time, matched with the events that they announce: recall, false alarms, lead.

The one place that says when a score becomes an alarm; `AlarmState` does it frame by frame, for live use.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlab.metrics.events import EpisodeScores, logit_of, sigmoid

REARM = 0.8  # share of the threshold (a probability) below which the score must fall before the next alarm
COUNTS = ("matched", "events", "false", "duplicates", "hours", "lead")  # leads: their sum, in frames


@dataclass(frozen=True)
class AlarmRule:
    """When a score becomes an alarm: it reaches `high`, having been below `low` since the last one.

    Args:
        high: logit at or above which an alarm is raised.
        low: logit below which the next one is made possible.
        refractory: alarms are at least so many frames apart; an edge that comes sooner is lost.
    """

    high: float
    low: float
    refractory: int


def make_rule(high: float, refractory: int, slope: float = 1.0, intercept: float = 0.0) -> AlarmRule:
    """Return the rule of a threshold; the score has to fall below 0.8 of its calibrated probability.

    Args:
        high: threshold as a raw logit; infinite ones raise never (inf) or once (-inf).
        refractory: in frames.
        slope: of the calibration, above 0.
        intercept: of the calibration.
    """
    low = (float(logit_of(REARM * sigmoid(slope * high + intercept))) - intercept) / slope
    return AlarmRule(high, min(low, high), refractory)


def find_alarms(logit: np.ndarray, mask: np.ndarray, rule: AlarmRule) -> np.ndarray:
    """Return the (k,) int64 frames of the alarms; frames outside `mask` neither raise one nor make one possible."""
    frames = np.flatnonzero(mask & ((logit >= rule.high) | (logit < rule.low)))
    above = logit[frames] >= rule.high
    before = np.concatenate([[False], above[:-1]])
    return _spaced(frames[above & ~before].astype(np.int64), rule.refractory)


def _spaced(edges: np.ndarray, refractory: int) -> np.ndarray:
    """Drop the edges that come less than `refractory` frames after the last one kept."""
    if len(edges) < 2 or int(np.diff(edges).min()) >= refractory:
        return edges
    following = np.searchsorted(edges, edges + refractory)
    kept, index = [], 0
    while index < len(edges):
        kept.append(index)
        index = int(following[index])
    return edges[kept]


class AlarmState:
    """The same frame by frame: `step` gives True at each alarm that `find_alarms` would find."""

    def __init__(self, rule: AlarmRule) -> None:
        self.rule = rule
        self._armed, self._frame = True, -1
        self._last: int | None = None

    def step(self, logit: float) -> bool:
        """Take the raw logit of the next frame; True: an alarm."""
        self._frame += 1
        if logit < self.rule.low:
            self._armed = True
        if not self._armed or logit < self.rule.high:
            return False
        self._armed = False
        if self._last is not None and self._frame - self._last < self.rule.refractory:
            return False
        self._last = self._frame
        return True


@dataclass(frozen=True, eq=False)
class Matches:
    """Alarms of an episode held against its events.

    Args:
        alarms: (k,) int64 frames.
        onsets: (n,) int64 frames of the events.
        alarm_of: (n,) int64 index of the alarm that announces each event, -1 for none.
        false: (k,) bool, True = announces no event (others without an event of their own are duplicates).
    """

    alarms: np.ndarray
    onsets: np.ndarray
    alarm_of: np.ndarray
    false: np.ndarray

    @property
    def leads(self) -> np.ndarray:
        """Frames from alarm to event, of the events that have one."""
        hit = self.alarm_of >= 0
        return self.onsets[hit] - self.alarms[self.alarm_of[hit]]

    @property
    def duplicates(self) -> np.ndarray:
        """(k,) bool: alarms before an event that another alarm has announced."""
        taken = np.zeros(len(self.alarms), dtype=bool)
        taken[self.alarm_of[self.alarm_of >= 0]] = True
        return ~taken & ~self.false


def match(alarms: np.ndarray, onsets: np.ndarray, horizon: int) -> Matches:
    """Give each event, in time order, the earliest free alarm 1 to `horizon` frames before it.

    No assignment matches more events, since all windows are equally long.

    Args:
        alarms: (k,) ascending frames.
        onsets: (n,) ascending frames.
        horizon: frames.
    """
    alarm_of = np.full(len(onsets), -1, dtype=np.int64)
    free = 0
    for event, first in enumerate(np.searchsorted(alarms, onsets - horizon)):
        index = max(free, int(first))
        if index < len(alarms) and alarms[index] < onsets[event]:
            alarm_of[event], free = index, index + 1
    following = np.searchsorted(onsets, alarms, side="right")
    ahead = np.append(onsets, np.iinfo(np.int64).max)[following] - alarms
    return Matches(alarms, onsets, alarm_of, ahead > horizon)


def match_episode(episode: EpisodeScores, rule: AlarmRule, horizon: int) -> Matches:
    """Find the alarms of an episode and match them with its events."""
    return match(find_alarms(episode.logit, episode.mask, rule), episode.onsets, horizon)


def count(matches: Matches, hours: float) -> np.ndarray:
    """Return what the alarms of one episode did: (6,) float64 in the order of COUNTS; rows of episodes add up."""
    leads = matches.leads
    numbers = (len(leads), len(matches.onsets), matches.false.sum(), matches.duplicates.sum(), hours, leads.sum())
    return np.array(numbers, dtype=np.float64)


def event_rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return recall, precision, f1, false alarms per hour and mean lead in frames; NaN where one is not defined.

    Args:
        counts: (..., 6) in the order of COUNTS.

    Returns:
        Name -> (...) values.
    """
    matched, events, false, _, hours, lead = np.moveaxis(counts, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "recall": matched / events,
            "precision": matched / (matched + false),
            "f1": np.where(events > 0, 2 * matched / (matched + false + events), np.nan),
            "fa_per_hour": np.where(hours > 0, false / hours, np.nan),
            "mean_lead": lead / matched,
        }


def rank_thresholds(scores: np.ndarray, limit: int = 200) -> np.ndarray:
    """Return up to `limit` distinct scores, descending, whose ranks are spaced evenly on a log scale.

    Alarms are few and come from the highest scores: this follows them from one alarm to many.
    """
    if not len(scores):
        return scores
    ranks = np.unique(np.geomspace(1, len(scores), limit).astype(np.int64)) - 1
    return np.unique(np.sort(scores)[::-1][ranks])[::-1]


def sweep_alarms(
    episodes: Sequence[EpisodeScores], thresholds: np.ndarray, horizon: int, refractory: int, line: tuple[float, float]
) -> np.ndarray:
    """Count what the alarms of each episode do at each threshold.

    Args:
        episodes: with raw logits.
        thresholds: (K,) raw logits.
        horizon: frames before an event in which an alarm announces it.
        refractory: frames.
        line: slope and intercept of the calibration, on which hysteresis depends.

    Returns:
        (K, E, 6) float64, the last axis in the order of COUNTS.
    """
    rules = [make_rule(float(threshold), refractory, *line) for threshold in thresholds]
    rows = [[count(match_episode(episode, rule, horizon), episode.hours) for episode in episodes] for rule in rules]
    return np.array(rows, dtype=np.float64).reshape(len(rules), len(episodes), len(COUNTS))


def recall_at(counts: np.ndarray, fa_per_hour: float) -> np.ndarray:
    """Return the highest recall of events at any threshold with at most so many false alarms per hour.

    Args:
        counts: (..., K, 6) at K thresholds, in the order of COUNTS.
        fa_per_hour: false alarms per hour that are allowed.

    Returns:
        (...) recall; 0 where every threshold gives more, NaN without events.
    """
    rates = event_rates(counts)
    # no alarm at all is always allowed, and finds nothing
    best = np.max(np.where(rates["fa_per_hour"] <= fa_per_hour, rates["recall"], 0.0), axis=-1, initial=0.0)
    return np.where(counts[..., 1].max(-1) > 0, best, np.nan)


def collar_f1(episodes: Sequence[EpisodeScores], rule: AlarmRule, lead: float, collar: float = 0.2) -> dict[str, float]:
    """Score alarms as sound event detection does: onsets alone, right within a collar.

    Args:
        episodes: with raw logits.
        rule: of the alarms.
        lead: frames by which an alarm is taken to come before its event.
        collar: seconds to either side.

    Returns:
        f1, precision, recall; NaN where there is nothing to find or nothing found.

    Source: Mesaros, Heittola and Virtanen 2016, "Metrics for Polyphonic Sound Event Detection", section 3.2.
    """
    hits = guesses = truths = 0
    for episode in episodes:
        guessed = find_alarms(episode.logit, episode.mask, rule) + lead
        hits += _count_pairs(guessed, episode.onsets.astype(float), collar * episode.frame_rate)
        guesses, truths = guesses + len(guessed), truths + len(episode.onsets)
    rates = event_rates(np.array([hits, truths, guesses - hits, 0, 1, 0], dtype=np.float64))
    return {name: float(rates[name]) for name in ("f1", "precision", "recall")}


def _count_pairs(guessed: np.ndarray, true: np.ndarray, collar: float) -> int:
    """Count the most pairs within `collar` of each other, none used twice: earliest with earliest is optimal."""
    pairs = first = second = 0
    while first < len(guessed) and second < len(true):
        if abs(guessed[first] - true[second]) <= collar + 1e-9:
            pairs, first, second = pairs + 1, first + 1, second + 1
        elif guessed[first] < true[second]:
            first += 1
        else:
            second += 1
    return pairs

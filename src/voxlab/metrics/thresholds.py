"""The threshold that is best by some objective, over every distinct score; ties go to the highest."""

from collections.abc import Sequence

import numpy as np

from voxlab.metrics.alarms import event_rates, rank_thresholds, sweep_alarms
from voxlab.metrics.events import EpisodeScores, Frames
from voxlab.metrics.ranking import RankTable, curve

FRAME_OBJECTIVES = ("f1", "fbeta", "youden", "recall_at_precision", "precision_at_recall")
EVENT_OBJECTIVES = ("event_f1", "fa_per_hour")


class UnreachableTarget(ValueError):
    """No threshold fulfils the condition of the objective."""


def best_frame_threshold(frames: Frames, objective: str, target: float | None = None) -> tuple[float, float]:
    """Return the raw logit at or above which a frame counts as predicted, and the objective's value there.

    Args:
        frames: with at least one positive.
        objective: of FRAME_OBJECTIVES: the highest F1, F-beta or Youden's J, the highest recall with a precision of at
            least `target`, or the highest precision with a recall of at least `target`.
        target: beta, precision or recall.

    Raises:
        UnreachableTarget: no threshold reaches the precision.
    """
    points = curve(frames.logit, frames.y)
    value = frame_values(points.tp, points.fp, points.positives, points.negatives, objective, target)
    best = int(np.argmax(value))  # the first of equals: the highest score
    if value[best] == -np.inf:
        raise UnreachableTarget(f"the highest precision at any threshold is {float(points.precision.max()):.4g}")
    return float(points.thresholds[best]), float(value[best])


def frame_values(
    tp: np.ndarray,
    fp: np.ndarray,
    positives: np.ndarray | float,
    negatives: np.ndarray | float,
    objective: str,
    target: float | None,
) -> np.ndarray:
    """Return an objective of FRAME_OBJECTIVES from counts that broadcast; -inf where its condition does not hold."""
    bound, weight = float(target or 0), 1.0 if objective == "f1" else float(target or 0) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, precision = tp / positives, tp / (tp + fp)
        if objective in ("f1", "fbeta"):
            return (1 + weight) * tp / (tp + fp + weight * positives)
        if objective == "youden":
            return recall - np.where(np.asarray(negatives) > 0, fp / np.maximum(negatives, 1), 0.0)
        if objective == "recall_at_precision":
            return np.where(precision >= bound, recall, -np.inf)
        return np.where(recall >= bound, precision, -np.inf)


def threshold_spread(table: RankTable, weights: np.ndarray, objective: str, target: float | None) -> np.ndarray:
    """Return the threshold that each mixture of groups would have chosen; NaN where it has no positives.

    The best threshold always is the score of a positive: going lower only to take negatives in never pays.

    Args:
        table: of G groups.
        weights: (B, G) how often each mixture holds each group.
        objective: of FRAME_OBJECTIVES.
        target: see `best_frame_threshold`.

    Returns:
        (B,) raw logits.
    """
    chosen = []
    for row in weights.astype(np.float64):
        positives, negatives = float(row @ table.positives), float(row @ table.negatives)
        value = frame_values(row @ table.tp, row @ table.fp, positives, negatives, objective, target)
        usable = positives > 0 and value.max() > -np.inf
        chosen.append(table.scores[np.argmax(value)] if usable else np.nan)
    return np.array(chosen)


def best_event_threshold(
    episodes: Sequence[EpisodeScores],
    objective: str,
    target: float | None,
    *,
    horizon: int,
    refractory: int,
    line: tuple[float, float],
) -> tuple[float, float]:
    """Return the raw logit that gives the best alarms, among 400 scores spaced evenly by the logarithm of their rank.

    Args:
        episodes: with at least one event.
        objective: event_f1, or fa_per_hour: the highest recall of events with at most `target` false alarms per hour.
        target: false alarms per hour.
        horizon: see `alarms.match`.
        refractory: see `alarms.AlarmRule`.
        line: slope and intercept of the calibration.

    Raises:
        UnreachableTarget: even the highest score gives more false alarms.
    """
    thresholds = rank_thresholds(np.concatenate([episode.logit[episode.mask] for episode in episodes]), 400)
    rates = event_rates(sweep_alarms(episodes, thresholds, horizon, refractory, line).sum(1))
    if objective == "event_f1":
        value = rates["f1"]
    else:
        value = np.where(rates["fa_per_hour"] <= float(target or 0), rates["recall"], -np.inf)
    best = int(np.argmax(value))
    if value[best] == -np.inf:
        fewest = float(rates["fa_per_hour"].min())
        raise UnreachableTarget(f"the fewest false alarms per hour are {fewest:.4g}")
    return float(thresholds[best]), float(value[best])

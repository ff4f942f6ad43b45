"""The decision taken on validation: calibration and threshold."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from voxlab.errors import UserError
from voxlab.metrics import alarms
from voxlab.metrics.calibration import Platt, fit_platt
from voxlab.metrics.events import EpisodeScores, Frames, logit_of, pool, sigmoid
from voxlab.metrics.thresholds import (
    FRAME_OBJECTIVES,
    UnreachableTarget,
    best_event_threshold,
    best_frame_threshold,
)
from voxlab.tasks.laughter.eval_settings import EvalSettings

_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Where a score becomes a prediction.

    Args:
        value: calibrated probability.
        raw: probability before calibration.
        logit: raw logit: a frame counts as predicted when its logit is at least this. The other two say the same.
        logit_low: raw logit below which the score must fall before it can raise an alarm again.
        objective: what it is best at; "given" for `thr.value`.
        score: the objective's value where it was chosen; None when given.
        source: validation, cv or thr.value.
        split: where it was chosen.
        num_frames: frames that it was chosen on.
        num_positives: positives among them.
        folds: thr.source=cv: what is chosen with each fifth of the shows left out.
    """

    value: float
    raw: float
    logit: float
    logit_low: float
    objective: str
    score: float | None
    source: str
    split: str
    num_frames: int
    num_positives: int
    folds: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


@dataclass(frozen=True)
class Decision:
    """Calibration and threshold: all that is fitted on validation."""

    platt: Platt
    threshold: Threshold

    def rule(self, refractory: int) -> alarms.AlarmRule:
        """Return when a score becomes an alarm."""
        return alarms.AlarmRule(self.threshold.logit, self.threshold.logit_low, refractory)

    @property
    def line(self) -> tuple[float, float]:
        """Slope and intercept of the calibration."""
        return self.platt.slope, self.platt.intercept

    def at(self, probability: float) -> "Decision":
        """Return the same calibration with a threshold that is given: a calibrated probability."""
        counts = {"num_frames": self.threshold.num_frames, "num_positives": self.threshold.num_positives}
        return replace(self, threshold=_given(probability, self.platt, counts))

    def record(self) -> dict[str, Any]:
        """Return plain values: {"threshold": {...}, "calibration": {...}}."""
        threshold = asdict(self.threshold)
        return {"threshold": {**threshold, "folds": list(threshold["folds"])}, "calibration": self.platt.record()}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "Decision":
        """Make it again from `record()`."""
        threshold = {**record["threshold"], "folds": tuple(record["threshold"]["folds"])}
        return Decision(Platt(**record["calibration"]), Threshold(**threshold))


def decide(
    validation: Sequence[EpisodeScores], settings: EvalSettings, *, train: Sequence[EpisodeScores] = (), seed: int = 0
) -> Decision:
    """Calibrate on validation and choose the threshold.

    Args:
        validation: episodes with scores.
        settings: of the evaluation.
        train: thr.source=cv: episodes with scores, that the folds are made of too.
        seed: of the folds.

    Raises:
        UserError: there is no validation split, or no positives in it, and no `thr.value`.
    """
    frames = pool(validation)
    if settings.thr.value is None:
        _check_validation(validation, frames)
    platt = fit_platt(frames.logit, frames.y) if settings.eval.calibrate == "platt" else Platt(reason="not asked for")
    counts = {"num_frames": len(frames.y), "num_positives": int(frames.y.sum())}
    if settings.thr.value is not None:
        return Decision(platt, _given(settings.thr.value, platt, counts))
    told = {"objective": settings.thr.objective, "source": settings.thr.source, "split": "validation", **counts}
    if settings.thr.source == "cv":
        return _decide_by_folds([*train, *validation], settings, platt, told, seed)
    logit, score = best_threshold(validation, settings, platt)
    return Decision(platt, _threshold(logit, platt, {**told, "score": score}))


def _check_validation(validation: Sequence[EpisodeScores], frames: Frames) -> None:
    if not validation:
        raise UserError(
            "there are no validation episodes to choose a threshold on (never done on test). Extract that split, "
            "or give a threshold: thr.value=0.5 (a probability)."
        )
    if not frames.y.any():
        raise UserError(
            f"none of the {len(frames.y)} frames of the {len(validation)} validation episodes is positive: no "
            "threshold can be chosen. Add episodes with laughter, or give one: thr.value=0.5 (a probability)."
        )


def _given(probability: float, platt: Platt, counts: Mapping[str, int]) -> Threshold:
    told = {"objective": "given", "score": None, "source": "thr.value", "split": "none"}
    return _threshold(platt.raw(float(logit_of(probability))), platt, {**told, **counts})


def _threshold(logit: float, platt: Platt, told: Mapping[str, Any]) -> Threshold:
    low = alarms.make_rule(logit, 0, platt.slope, platt.intercept).low
    value, raw = float(platt.probability(logit)), float(sigmoid(logit))
    return Threshold(value=value, raw=raw, logit=logit, logit_low=low, **told)


def best_threshold(episodes: Sequence[EpisodeScores], settings: EvalSettings, platt: Platt) -> tuple[float, float]:
    """Return the raw logit that is best by `thr.objective`, and the objective's value.

    Raises:
        UserError: no threshold fulfils the condition of the objective.
    """
    thr = settings.thr
    try:
        if thr.objective in FRAME_OBJECTIVES:
            return best_frame_threshold(pool(episodes), thr.objective, thr.target)
        about: dict[str, Any] = {"horizon": settings.events.horizon, "refractory": settings.refractory}
        return best_event_threshold(episodes, thr.objective, thr.target, line=(platt.slope, platt.intercept), **about)
    except UnreachableTarget as error:
        raise UserError(
            f"thr.target={thr.target}: no threshold on validation fulfils it for "
            f"thr.objective={thr.objective}; {error}. Ask for less; a trained model is chosen for anew with "
            "stage=test ckpt=<run folder>."
        ) from None


def check_folds(shows: Collection[str]) -> None:
    """Refuse too few shows with positive frames for thr.source=cv.

    Raises:
        UserError: says how many are needed.
    """
    if len(shows) < _FOLDS:
        raise UserError(
            f"thr.source=cv needs {_FOLDS} shows with laughter in train and validation together; there are "
            f"{len(shows)}. Use thr.source=validation."
        )


def _decide_by_folds(
    episodes: Sequence[EpisodeScores], settings: EvalSettings, platt: Platt, told: Mapping[str, Any], seed: int
) -> Decision:
    """Choose a threshold with each fifth of the shows left out; the median counts."""
    if not any(episode.logit.any() for episode in episodes if episode.split == "train"):
        raise UserError("thr.source=cv needs the scores of the training episodes. Use thr.source=validation.")
    shows = sorted({episode.show for episode in episodes if pool([episode]).y.any()})
    check_folds(shows)
    order = np.random.default_rng(seed).permutation(len(shows))
    fold_of = {shows[show]: place % _FOLDS for place, show in enumerate(order)}
    folds = []
    for fold in range(_FOLDS):
        kept = [episode for episode in episodes if fold_of.get(episode.show) != fold]
        logit, score = best_threshold(kept, settings, platt)
        folds.append({"logit": logit, "score": score, "value": float(platt.probability(logit))})
    logit = sorted(fold["logit"] for fold in folds)[_FOLDS // 2]
    score = float(np.median([fold["score"] for fold in folds]))
    all_frames = pool(episodes)
    counts = {"num_frames": len(all_frames.y), "num_positives": int(all_frames.y.sum())}
    told = {**told, **counts, "split": "train+validation", "score": score, "folds": tuple(folds)}
    return Decision(platt, _threshold(logit, platt, told))

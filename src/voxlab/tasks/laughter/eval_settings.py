"""Settings of the evaluation: the nodes `thr`, `events` and `eval` of the configuration."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlab.errors import UserError, check_types
from voxlab.metrics.events import FRAME_RATE
from voxlab.metrics.thresholds import EVENT_OBJECTIVES, FRAME_OBJECTIVES
from voxlab.tasks.settings import read

_OBJECTIVES = (*FRAME_OBJECTIVES, *EVENT_OBJECTIVES)
_TARGETS = {  # objective -> what thr.target is, and its highest value
    "fbeta": ("beta, above 0", math.inf),
    "recall_at_precision": ("the precision to keep, above 0 and at most 1", 1.0),
    "precision_at_recall": ("the recall to keep, above 0 and at most 1", 1.0),
    "fa_per_hour": ("the false alarms allowed per hour, above 0", math.inf),
}


@dataclass(frozen=True, kw_only=True)
class ThresholdSettings:
    """What conf/task/laughter.yaml describes under `thr`."""

    objective: str = "f1"
    target: float | None = None
    source: str = "validation"
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class EventSettings:
    """What it describes under `events`."""

    horizon: int
    refractory_s: float = 2.0


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What it describes under `eval`."""

    bootstrap: int = 1000
    cluster: str = "show"
    calibrate: str = "platt"
    plots: str = "all"
    csv: bool = False


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """All settings of the evaluation.

    Raises:
        UserError: a value is of another type or out of range.
    """

    thr: ThresholdSettings
    events: EventSettings
    eval: ReportSettings
    shift: int

    def __post_init__(self) -> None:
        for name in ("thr", "events", "eval"):
            check_types(getattr(self, name), f"{name}.")
        _choose("thr.objective", self.thr.objective, _OBJECTIVES)
        _choose("thr.source", self.thr.source, ("validation", "cv"))
        _choose("eval.cluster", self.eval.cluster, ("show", "episode"))
        _choose("eval.calibrate", self.eval.calibrate, ("platt", "none"))
        _choose("eval.plots", self.eval.plots, ("all", "none"))
        _check_target(self.thr)
        if self.thr.value is not None and not 0 < self.thr.value < 1:
            raise UserError(f"thr.value={self.thr.value}: give a probability above 0 and below 1, or null.")
        if self.events.horizon < 1:
            raise UserError(f"events.horizon={self.events.horizon}: give a whole number of frames of 1 or more.")
        if not 0 <= self.events.refractory_s < math.inf:
            raise UserError(f"events.refractory_s={self.events.refractory_s}: give seconds, 0 or more.")
        if self.eval.bootstrap != 0 and self.eval.bootstrap < 100:
            raise UserError(f"eval.bootstrap={self.eval.bootstrap}: give 100 resamples or more, or 0 for no intervals.")

    @property
    def refractory(self) -> int:
        """Frames that two alarms are at least apart."""
        return math.floor(self.events.refractory_s * FRAME_RATE + 0.5)


def _choose(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(f"{key}={value}: choose one of {', '.join(allowed)}.")


def _check_target(thr: ThresholdSettings) -> None:
    if thr.objective not in _TARGETS:
        if thr.target is not None:
            raise UserError(f"thr.target={thr.target}: thr.objective={thr.objective} takes none. Leave it at null.")
        return
    meaning, top = _TARGETS[thr.objective]
    if thr.target is None or not 0 < thr.target <= top or thr.target == math.inf:
        raise UserError(f"thr.target={thr.target}: thr.objective={thr.objective} needs {meaning}.")


def read_settings(
    thr: Mapping[str, Any], events: Mapping[str, Any], eval: Mapping[str, Any], shift: int
) -> EvalSettings:
    """Make settings of the three nodes of the configuration.

    Args:
        thr: keys of `ThresholdSettings`.
        events: keys of `EventSettings`; horizon null: `shift`.
        eval: keys of `ReportSettings`.
        shift: frames before an onset that are labelled.

    Raises:
        UserError: a value is of another type or out of range.
    """
    horizon = events.get("horizon")
    timing = {**events, "horizon": max(1, shift) if horizon is None else horizon}
    parts: dict[str, Any] = {"thr": read(ThresholdSettings, thr, "thr"), "eval": read(ReportSettings, eval, "eval")}
    parts["events"] = read(EventSettings, timing, "events")
    return EvalSettings(**parts, shift=shift)

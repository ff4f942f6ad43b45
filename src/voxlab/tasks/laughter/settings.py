"""Settings of `task=laughter`, checked before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlab.audio import Seconds
from voxlab.data.laughter_labels import LabelSettings
from voxlab.errors import UserError, check_types
from voxlab.models.laughter import NORMS
from voxlab.tasks.settings import read

_BATCH_SIZES = {False: 512, True: 32}  # frames; sequences of models that look back


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What conf/task/laughter.yaml describes under `fit`.

    Raises:
        UserError: a value is out of range.
    """

    batch_size: int | None = None
    block: int = 256
    buffer: int = 65_536
    norm: str = "standard"
    read_ahead: int = 4
    monitor: str = "val/ap"
    patience: int | None = 10
    min_delta: float = 0.0
    save_every: int = 1000
    solver: str = "sgd"
    l2: float = 1e-4
    solver_steps: int = 100
    shuffle_labels: bool = False

    def __post_init__(self) -> None:
        check_types(self, "fit.")
        for name in ("batch_size", "block", "buffer", "patience", "save_every", "solver_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"fit.{name}={value}: give a whole number of 1 or more.")
        for name in ("min_delta", "l2", "read_ahead"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"fit.{name}={getattr(self, name)}: give a number of 0 or more.")
        choices = {"norm": NORMS, "monitor": ("val/ap", "val/loss"), "solver": ("sgd", "lbfgs")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"fit.{name}={getattr(self, name)}: choose {' or '.join(allowed)}.")

    def frames_or_sequences(self, context: int) -> int:
        """Return the batch size over all ranks, for a model that looks back by `context` frames."""
        return self.batch_size or _BATCH_SIZES[context > 0]

    def score(self, row: Mapping[str, float]) -> float:
        """Return the monitored value of a validation, turned so that higher is better."""
        return -row[self.monitor] if self.monitor == "val/loss" else row[self.monitor]

    def best_of(self, scores: Sequence[float]) -> int:
        """Return the number of the best validation: the last that beat all before it by `min_delta`."""
        best = 0
        for number, score in enumerate(scores):
            best = number if score > scores[best] + self.min_delta else best
        return best


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which training frames are used: conf/task/laughter.yaml describes it under `sampling`.

    Raises:
        UserError: a value is out of range.
    """

    mode: str = "subsample"
    neg_per_pos: float = 50.0
    near_s: Seconds = 10.0
    rate: float = 0.5

    def __post_init__(self) -> None:
        check_types(self, "sampling.")
        if self.mode not in ("subsample", "all", "balanced"):
            raise UserError(f"sampling.mode={self.mode}: choose subsample, all or balanced.")
        for name in ("neg_per_pos", "near_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"sampling.{name}={getattr(self, name)}: give a number of 0 or more.")
        if not 0 < self.rate < 1:
            raise UserError(f"sampling.rate={self.rate}: give the share of positive frames, between 0 and 1.")


def read_labels(values: Mapping[str, Any], shift: Any) -> LabelSettings:
    """Return the checked label settings.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    labels = read(LabelSettings, {**values, "shift": shift}, "labels")
    labels.check()
    return labels

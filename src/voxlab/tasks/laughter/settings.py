"""Settings of `task=laughter`, checked before anything is loaded."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from voxlab.audio import Seconds
from voxlab.data.laughter_labels import LabelSettings
from voxlab.errors import UserError, check_types
from voxlab.models.laughter import NORMS

Settings = TypeVar("Settings")
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


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What of the `trainer` group the training loop itself looks after; the rest goes to `lightning.Trainer`.

    Raises:
        UserError: a value is out of range.
    """

    max_epochs: int | None = 30
    max_steps: int = -1
    log_every_n_steps: int = 50
    gradient_clip_val: float | None = 1.0

    def __post_init__(self) -> None:
        check_types(self, "trainer.")
        if self.max_steps < 1 and (self.max_epochs is None or self.max_epochs < 1):
            raise UserError(f"trainer.max_epochs={self.max_epochs}: give 1 or more, or trainer.max_steps.")
        if self.log_every_n_steps < 1:
            raise UserError(f"trainer.log_every_n_steps={self.log_every_n_steps}: give 1 or more.")
        if self.gradient_clip_val is not None and not self.gradient_clip_val > 0:
            raise UserError(f"trainer.gradient_clip_val={self.gradient_clip_val}: give a number above 0, or null.")

    def steps(self, per_epoch: int) -> int:
        """Return the number of training steps, where an epoch has `per_epoch`."""
        limits = [self.max_steps] if self.max_steps > 0 else []
        return min([*limits, *([self.max_epochs * per_epoch] if self.max_epochs else [])])


def read(kind: type[Settings], values: Mapping[str, Any], node: str) -> Settings:
    """Return the settings of one node of the configuration.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{node}.{unknown[0]}: there is no such key. Known: {', '.join(known)}.")
    return kind(**values)


def log_facts(log: logging.Logger, facts: Mapping[str, Any]) -> None:
    """Log a line for each fact about a run."""
    log.info("\n%s", "\n".join(f"  {name.replace('_', ' ')}: {value}" for name, value in facts.items()))


def read_loop(keys: Mapping[str, Any]) -> Loop:
    """Return what the loop itself looks after, out of the keys of the `trainer` group."""
    names = [field.name for field in fields(Loop)]
    return Loop(
        **{name: keys[name] for name in names if name in keys and (keys[name] is not None or name != "max_steps")}
    )


def read_labels(values: Mapping[str, Any], shift: Any) -> LabelSettings:
    """Return the checked label settings.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    labels = read(LabelSettings, {**values, "shift": shift}, "labels")
    labels.check()
    return labels

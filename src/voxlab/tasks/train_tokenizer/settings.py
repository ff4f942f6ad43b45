"""Settings of `task=train_tokenizer stage=fit`, checked before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from voxlab.audio import Decibels, Seconds
from voxlab.errors import UserError, check_types

_CHOICES: dict[str, dict[str, Any]] = {
    "mel": {"batch_size": 16, "segment_seconds": 3.0, "quantizer_dropout": 0.5},
    "wave": {"batch_size": 32, "segment_seconds": 1.0, "quantizer_dropout": 0.5},
    "vocoder": {"batch_size": 32, "segment_seconds": 1.0, "quantizer_dropout": 0.5},
    "motion": {"batch_size": 256, "segment_seconds": 0.0, "quantizer_dropout": 0.2},  # counts its windows in frames
}
_CLIP = {"mel": 1.0, "wave": 10.0, "vocoder": 10.0, "motion": 1.0}
MAX_SKIPPED = 10


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What conf/task/train_tokenizer.yaml describes under `fit`, with the choices of the family filled in.

    Raises:
        UserError: a value is out of range.
    """

    batch_size: int = 16
    segment_seconds: Seconds = 3.0
    window: int = 64
    stride: int = 20
    segments_per_epoch: int | None = None
    resample: bool = True
    loudness: Sequence[Decibels] | None = (-30.0, -16.0)
    num_workers: int = 0
    train_split: str = "train"
    val_split: str | None = "validation"
    val_segments: int | None = None
    ema_decay: float = 0.999
    warmup_steps: int = 500
    pool_size: int | None = None
    quantizer_dropout: float = 0.5
    save_every: int = 1000
    keep_every: int | None = None
    audio_every: int = 5000
    num_clips: int = 8
    on_nan: str = "stop"

    def __post_init__(self) -> None:
        check_types(self, "fit.")
        for name, lowest in (
            *(("batch_size", 1), ("save_every", 1), ("num_workers", 0), ("warmup_steps", 0), ("audio_every", 0)),
            *(("window", 2), ("stride", 1), ("num_clips", 0), ("keep_every", 1), ("pool_size", 1), ("val_segments", 1)),
        ):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < lowest):
                raise UserError(f"fit.{name}={value!r}: give a whole number of {lowest} or more.")
        for name in ("ema_decay", "quantizer_dropout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UserError(f"fit.{name}={value!r}: give a number from 0 to 1.")
        if self.loudness is not None and len(self.loudness) != 2:
            raise UserError(f"fit.loudness={list(self.loudness)}: give the lowest and the highest in LUFS, or null.")
        if self.segments_per_epoch is not None and self.segments_per_epoch < self.batch_size:
            raise UserError(
                f"fit.segments_per_epoch={self.segments_per_epoch}: an epoch has at least one batch; give "
                f"{self.batch_size} (fit.batch_size) or more, or null."
            )
        if self.on_nan not in ("stop", "skip"):
            raise UserError(f"fit.on_nan={self.on_nan}: choose stop or skip.")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What of the `trainer` group the training loop itself looks after; the rest goes to `lightning.Trainer`."""

    max_steps: int
    val_check_interval: int = 1000
    log_every_n_steps: int = 50
    gradient_clip_val: float = 1.0

    def __post_init__(self) -> None:
        for name in ("max_steps", "val_check_interval", "log_every_n_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"trainer.{name}={value!r}: give a whole number of steps, 1 or more.")
        clip = self.gradient_clip_val
        if isinstance(clip, bool) or not isinstance(clip, int | float) or not clip > 0:
            raise UserError(f"trainer.gradient_clip_val={clip!r}: give a number above 0.")


def fit_settings(values: Mapping[str, Any], family: str) -> Fit:
    """Return the settings of a family of networks; null takes its choice.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    unknown = sorted(set(values) - {field.name for field in fields(Fit)})
    if unknown:
        raise UserError(f"fit.{unknown[0]}: there is no such key. Known: {', '.join(f.name for f in fields(Fit))}.")
    return Fit(**{**values, **{name: value for name, value in _CHOICES[family].items() if values.get(name) is None}})


def loop_settings(values: Mapping[str, Any], family: str) -> Loop:
    """Return what the loop itself looks after, out of the keys of the `trainer` group.

    Raises:
        UserError: a value out of range.
    """
    given = {field.name: values[field.name] for field in fields(Loop) if values.get(field.name) is not None}
    return Loop(**{"gradient_clip_val": _CLIP[family], **given})

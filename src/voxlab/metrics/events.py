"""Scores and labels of one episode, frame by frame: what every measure of event prediction starts from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

FRAME_RATE = 12.5  # frames per second


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeScores:
    """What a model says about the T frames of an episode, and what is true.

    Args:
        key: unique name that may be a file name.
        name: as the corpus spells it.
        show: episodes of one show resemble each other: the unit that the bootstrap draws.
        split: train, validation or test.
        logit: (T,) float32, not calibrated; of the mean probability where there are several views.
        y: (T,) float32, 1 where an event is to be predicted, else 0.
        mask: (T,) bool, True = the frame counts.
        onsets: (n,) int64 frames at which the events begin that can be predicted, ascending.
        spans: (m, 2) int64 first frame and frame past the last one of each event, ascending.
        energy: (T,) level of each frame in dB, where known.
        vad: (T,) voice activity of each frame, 0..1, where known.
        view_logits: view -> (T,) float32, where there are several.
        frame_rate: frames per second.

    Raises:
        ValueError: the arrays don't fit each other, a logit is not finite, or a label is neither 0 nor 1.
    """

    key: str
    name: str
    show: str
    split: str
    logit: np.ndarray
    y: np.ndarray
    mask: np.ndarray
    onsets: np.ndarray
    spans: np.ndarray
    energy: np.ndarray | None = None
    vad: np.ndarray | None = None
    view_logits: Mapping[int, np.ndarray] | None = None
    frame_rate: float = FRAME_RATE

    def __post_init__(self) -> None:
        length = len(self.logit)
        rows = {"y": self.y, "mask": self.mask, "energy": self.energy, "vad": self.vad}
        rows |= {f"view {view}": row for view, row in (self.view_logits or {}).items()}
        for name, row in rows.items():
            if row is not None and row.shape != (length,):
                raise ValueError(f"{self.key}: {name} has shape {row.shape} for {length} frames of scores")
        if self.mask.dtype != np.bool_:
            raise ValueError(f"{self.key}: mask holds {self.mask.dtype}, not bool")
        if not np.isfinite(self.logit).all():
            raise ValueError(f"{self.key}: {int((~np.isfinite(self.logit)).sum())} scores are not finite")
        if not np.isin(self.y[self.mask], (0, 1)).all():
            raise ValueError(f"{self.key}: a label is neither 0 nor 1")

    @property
    def hours(self) -> float:
        """Length of the frames that count, in hours."""
        return int(self.mask.sum()) / self.frame_rate / 3600


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames that count of several episodes, one after the other.

    Args:
        logit: (N,) float32.
        y: (N,) bool.
        episode: (N,) int32, which episode each frame is of.
    """

    logit: np.ndarray
    y: np.ndarray
    episode: np.ndarray


def pool(episodes: Iterable[EpisodeScores]) -> Frames:
    """Return the frames that count of all episodes."""
    listed = list(episodes)
    counts = [int(episode.mask.sum()) for episode in listed]
    return Frames(
        _joined([episode.logit[episode.mask] for episode in listed], np.float32),
        _joined([episode.y[episode.mask] > 0 for episode in listed], np.bool_),
        np.repeat(np.arange(len(listed), dtype=np.int32), counts),
    )


def _joined(rows: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(rows).astype(dtype, copy=False) if rows else np.zeros(0, dtype)


def sigmoid(logit: np.ndarray | float) -> np.ndarray:
    """Return probabilities in float64; exact to the last digits at both ends."""
    z = np.asarray(logit, dtype=np.float64)
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def logit_of(probability: np.ndarray | float) -> np.ndarray:
    """Return log(p / (1 - p)) in float64; 0 and 1 give -inf and inf."""
    p = np.asarray(probability, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.log(p) - np.log1p(-p)


def mean_over_views(logits: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return the (T,) float32 logits of the mean probability of all views, without rounding it to 0 or 1."""
    rows = np.stack([np.asarray(logits[view], dtype=np.float64) for view in sorted(logits)])
    # log of the means of p and of 1 - p: neither vanishes where the other is near 1
    log_p, log_q = -np.logaddexp(0, -rows), -np.logaddexp(0, rows)
    return (np.logaddexp.reduce(log_p) - np.logaddexp.reduce(log_q)).astype(np.float32)

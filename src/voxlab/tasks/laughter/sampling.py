"""Which training frames are used, and how much each counts in the loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlab.data.laughter_labels import Labels
from voxlab.errors import UserError
from voxlab.tasks.laughter.settings import Sampling


@dataclass(frozen=True)
class Sampled:
    """Weights of all frames of several recordings.

    Attributes:
        weights: (T,) float32 each; 0: not used.
        num_pos: weight of the positive frames (horizon labels: of their sum).
        num_neg: weight of the negative frames.
        offset: log odds ratio to add to the logits of a model that was trained on them.
    """

    weights: list[np.ndarray]
    num_pos: float
    num_neg: float
    offset: float = 0.0

    @property
    def prior(self) -> float:
        """Weighted share of positive frames, kept away from 0 and 1 by one frame."""
        total = self.num_pos + self.num_neg
        return min(max(self.num_pos / total, 1 / total), 1 - 1 / total)


def sample(labels: Sequence[Labels], settings: Sampling, frame_rate: float, seed: int) -> Sampled:
    """Choose training frames; the same on every rank.

    "all": every unmasked frame counts 1. "subsample": positive frames and those within `near_s` of an onset count 1;
    of the others a share r, which gives `neg_per_pos` of them per positive frame, counts 1 / r, so sums over the chosen
    frames are those over all frames on average. "balanced": positive frames, and as many of the others as give the
    positive share `rate`, count 1; the odds are then too high by 1 / r, which `offset` takes back.

    Args:
        labels: of each view.
        settings: how to choose.
        frame_rate: in Hz.
        seed: of the choice.

    Raises:
        UserError: no positive frame, or a `rate` below the share of positive frames that there is.
    """
    num_pos = sum(float(item.y[item.mask].sum()) for item in labels)
    num_neg = sum(float(item.mask.sum()) for item in labels) - num_pos
    _check_classes(labels, num_pos, num_neg)
    if settings.mode == "all":
        return Sampled([item.mask.astype(np.float32) for item in labels], num_pos, num_neg)
    if settings.mode == "balanced":
        return _balance(labels, settings.rate, num_pos, num_neg, seed)
    always = [
        item.mask & ((item.y > 0) | near(item.onsets, len(item.y), settings.near_s * frame_rate)) for item in labels
    ]
    num_rest = sum(int((item.mask & ~kept).sum()) for item, kept in zip(labels, always, strict=True))
    share = min(1.0, settings.neg_per_pos * num_pos / max(num_rest, 1))
    if share <= 0 and num_rest:
        raise UserError(f"sampling.neg_per_pos={settings.neg_per_pos}: give a number above 0; some must be seen.")
    weights = _draw(labels, always, share, 1 / share if num_rest else 1.0, seed)
    return Sampled(weights, num_pos, num_neg)


def near(onsets: np.ndarray, num_frames: int, reach: float) -> np.ndarray:
    """Return (T,) bool: frames at most `reach` frames before or after an onset."""
    changes, whole = np.zeros(num_frames + 1, np.int64), int(reach)
    np.add.at(changes, np.clip(onsets - whole, 0, num_frames), 1)
    np.add.at(changes, np.clip(onsets + whole + 1, 0, num_frames), -1)
    return np.cumsum(changes)[:num_frames] > 0


def _check_classes(labels: Sequence[Labels], num_pos: float, num_neg: float) -> None:
    if num_pos <= 0 or num_neg <= 0:
        events = sum(item.counts.get("events", 0) for item in labels)
        raise UserError(
            f"the training frames are {num_pos:.0f} positive and {num_neg:.0f} negative, from {events} events in "
            f"{len(labels)} views: there is nothing to learn. Check labels.label, labels.min_confidence, "
            "labels.speakers and shift, and what task=extract wrote to events.json."
        )


def _balance(labels: Sequence[Labels], rate: float, num_pos: float, num_neg: float, seed: int) -> Sampled:
    share = num_pos * (1 - rate) / (rate * num_neg)
    if share > 1:
        raise UserError(
            f"sampling.rate={rate}: the share of positive frames is {num_pos / (num_pos + num_neg):.4f} already; "
            "give a larger one, or sampling.mode=all."
        )
    weights = _draw(labels, [item.mask & (item.y > 0) for item in labels], share, 1.0, seed)
    kept = sum(float((weight * (1 - item.y)).sum()) for weight, item in zip(weights, labels, strict=True))
    return Sampled(weights, num_pos, kept, float(np.log(kept / num_neg)))


def _draw(
    labels: Sequence[Labels], always: Sequence[np.ndarray], share: float, weight: float, seed: int
) -> list[np.ndarray]:
    """Give weight 1 to `always`, and `weight` to a random share of the other unmasked frames."""
    weights = []
    for number, (item, kept) in enumerate(zip(labels, always, strict=True)):
        drawn = np.random.default_rng([seed, number]).random(len(kept)) < share
        weights.append(np.where(kept, 1.0, np.where(drawn & item.mask, weight, 0.0)).astype(np.float32))
    return weights

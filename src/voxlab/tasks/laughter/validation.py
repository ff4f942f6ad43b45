"""Figures of a validation: over all frames that count, in float64, so that no split of the work shows."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from voxlab.errors import UserError
from voxlab.losses.events import EventLoss
from voxlab.metrics.events import EpisodeScores, pool
from voxlab.metrics.ranking import auroc, average_precision


def validate(episodes: Sequence[EpisodeScores], loss: EventLoss) -> dict[str, float]:
    """Return AP, AUROC, loss and prior over all frames that count, NaN where undefined.

    Raises:
        UserError: a logit is not finite, or no frame counts.
    """
    frames = pool(episodes)
    if not len(frames.y):
        raise UserError("no validation frame counts: all are masked. Check labels.*")
    return {
        "val/ap": average_precision(frames.logit, frames.y),
        "val/auroc": auroc(frames.logit, frames.y),
        "val/loss": mean_loss(loss, frames.logit, frames.y),
        "val/prior": float(frames.y.mean()),
    }


@torch.no_grad()
def mean_loss(loss: EventLoss, logit: np.ndarray, y: np.ndarray) -> float:
    """Return the mean loss of (N,) frames, in float64."""
    logits = torch.from_numpy(logit).double()
    ones = torch.ones_like(logits)
    device = loss.class_weights.device
    total, count = loss(
        logits.to(device), torch.from_numpy(y).to(device).double(), ones.to(device), ones.to(device) > 0
    )
    value = float(total / count)
    return value if math.isfinite(value) else math.nan

"""Mean and standard deviation of each feature over training frames, whichever rank reads what."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from voxlab.data.frame_blocks import LabelledView
from voxlab.parallel import Ranks, gather
from voxlab.progress import track
from voxlab.tasks.moments import Moments, merge

_FRAMES = 4096  # at once


def measure(views: Sequence[LabelledView], ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (D,) float32 over the unmasked frames; the same for any number of ranks.

    Collective: each rank reads its share of the views; their moments are merged in the order of the views.
    """
    numbers = track(range(ranks.rank, len(views), ranks.world), "feature statistics", "views")
    own = {number: _moments(views[number]) for number in numbers}
    every = {number: moments for part in gather(ranks, own) for number, moments in part.items()}
    total = every[0]
    for number in range(1, len(views)):
        total = merge(total, every[number])
    count, mean, squares = total
    std = np.sqrt(squares / max(count, 1))
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std.astype(np.float32))


def _moments(view: LabelledView) -> Moments:
    dim = view.features.shape[1]
    total: Moments = (0, np.zeros(dim), np.zeros(dim))
    for start in range(0, len(view.mask), _FRAMES):
        mask = view.mask[start : start + _FRAMES]
        if mask.any():
            frames = np.asarray(view.features[start : start + _FRAMES])[mask].astype(np.float64)
            mean = frames.mean(0)
            total = merge(total, (len(frames), mean, np.square(frames - mean).sum(0)))
    return total

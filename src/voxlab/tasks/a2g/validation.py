"""Figures of a validation: what is hidden depends on the window alone, so validations and ranks are comparable."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from voxlab.losses.gesture import A2gLoss
from voxlab.models.gesture.masking import Masking
from voxlab.models.gesture.motion_codec import MotionCodec
from voxlab.parallel import Ranks, gather
from voxlab.tasks.a2g.data import hidden
from voxlab.tasks.a2g.module import compute_losses, summed
from voxlab.tasks.a2g.windows import Batch, Windows

_BATCH = 32  # windows at once; always the same, so that no figure depends on how work is dealt out
_SEED = 0


@torch.no_grad()
def validate(
    model: nn.Module,
    codecs: Mapping[str, MotionCodec],
    windows: Windows,
    masking: Masking,
    loss: A2gLoss,
    ranks: Ranks,
    device: torch.device | str,
) -> dict[str, float]:
    """Return the mean of each loss over all windows, as "val/<name>"; collective, the same on every rank."""
    starts = range(0, len(windows.places), _BATCH)
    own = {}
    for number in range(ranks.rank, len(starts), ranks.world):
        places = range(starts[number], min(starts[number] + _BATCH, len(windows.places)))
        batch = windows.gather(places) | hidden(windows, len(places), (_SEED, number), masking)
        losses = compute_losses(model, codecs, windows.finish(to_device(batch, device)), loss)
        own[number] = {name: (float(mean.total), float(mean.count)) for name, mean in losses.items()}
    every = {number: found for part in gather(ranks, own) for number, found in part.items()}
    names = every[0]
    totals = {name: sum(every[number][name][0] for number in sorted(every)) for name in names}
    counts = {name: sum(every[number][name][1] for number in sorted(every)) for name in names}
    row = summed({name: totals[name] / max(counts[name], 1.0) for name in names}, loss)
    return {f"val/{name}": float(value) for name, value in row.items()}


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """Return a batch whose tensors, nested ones too, are on a device."""

    def move(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: move(item) for name, item in value.items()}
        return value.to(device) if isinstance(value, torch.Tensor) else value

    return move(batch)

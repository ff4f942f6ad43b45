"""Averaged weights (exponential moving average) of a network in training."""

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged parameters towards the network's by 1 - decay; buffers (codebooks, statistics) are copied."""
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        list(average.parameters()), list(network.parameters()), 1.0 - decay
    )
    for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)

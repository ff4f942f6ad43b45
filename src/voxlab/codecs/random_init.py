"""Make untrained networks (`weights=random`, tests) behave like trained ones: varied codes, no rounding ties."""

import torch
from torch import nn


@torch.no_grad()
def shrink_biases(model: nn.Module) -> None:
    """Scale the biases of an untrained network to a tenth: they would outweigh its response to the signal."""
    for name, parameter in model.named_parameters():
        if "bias" in name:
            parameter.mul_(0.1)


def spread_entries(shape: torch.Size, std: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw codebook entries (E, D) with `std` (D,) per dimension and equal norms: else the shortest few always win."""
    directions = nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)
    return directions * shape[1] ** 0.5 * std

"""Make untrained networks (`weights=random`, tests) behave like trained ones: varied codes, no rounding ties."""

from typing import Any

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


@torch.no_grad()
def spread_codes(model: Any) -> Any:
    """Move the means of an untrained SNAC's code vectors to zero, so that codes vary; uses the global RNG."""
    samples = 20 * int(model.hop_length) * model.vq_strides[0]
    residual = model.encoder(torch.linspace(0, 0.3, samples) * torch.randn(1, 1, samples))
    for level in model.quantizer.quantizers:
        level.in_proj.bias -= level.in_proj(residual).mean(dim=(0, 2))
        residual = residual - level(residual)[0]
    return model

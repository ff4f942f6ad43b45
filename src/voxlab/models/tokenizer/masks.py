"""Which frames or samples of a padded batch are valid."""

import torch
from torch import Tensor


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """Return a (B, width) bool mask on the device of `lengths` (B,), True before each item's end."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]

"""Convolution layers for padded batches: an item gives the same in a batch as alone.

Whatever looks sideways (convolutions, norms over time) must see nothing past an item's end but zeros, as it would see
past the end of a single item. All masks are (B, F) bool, True = valid.
"""

import torch
from torch import Tensor, nn

_EPSILON = 1e-5


class MaskedGroupNorm(nn.Module):
    """Group norm over an item's valid frames only; equals nn.GroupNorm where all frames are valid."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise x (B, C, F) in the precision of the weights; what it gives at masked frames has no meaning."""
        with torch.autocast(x.device.type, enabled=False):
            valid = mask[:, None, None]
            grouped = x.to(self.weight.dtype).unflatten(1, (self.groups, -1)) * valid
            size = mask.sum(1).clamp_min(1)[:, None, None, None] * grouped.shape[2]
            centred = (grouped - grouped.sum((2, 3), keepdim=True) / size) * valid
            variance = centred.square().sum((2, 3), keepdim=True) / size
            normed = (centred * (variance + _EPSILON).rsqrt()).flatten(1, 2)
            return torch.addcmul(self.bias[:, None], normed, self.weight[:, None])


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each frame, so that a frame depends on no other one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPSILON)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise x (B, C, F); the mask isn't needed."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class MaskedLayer(nn.Module):
    """Convolution, norm, GELU; zero past each item's end."""

    def __init__(self, conv: nn.Conv1d | nn.ConvTranspose1d, norm: MaskedGroupNorm | ChannelNorm) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x (B, C, F), zero past each end, to the frames of `mask`, that of the output."""
        return nn.functional.gelu(self.norm(self.conv(x), mask)).masked_fill(~mask[:, None], 0)


def downsampling_conv(channels: int, out_channels: int, kernel: int, stride: int) -> nn.Conv1d:
    """Return a convolution with an odd kernel that turns stride * T frames into T."""
    return nn.Conv1d(channels, out_channels, kernel, stride, padding=kernel // 2)


def upsampling_conv(channels: int, stride: int) -> nn.ConvTranspose1d:
    """Return a transposed convolution of width 4 * stride that turns T frames into exactly stride * T; stride > 1."""
    extra = 3 * stride
    return nn.ConvTranspose1d(
        channels, channels, 4 * stride, stride, padding=(extra + 1) // 2, output_padding=extra % 2
    )

"""Convolutional encoder and decoder of the waveform codec with Snake activations, look-ahead or causal.

Batch equals single: whatever lies past an item's end is zeroed before each convolution that looks sideways, which is
what the zero padding of that item alone would be. The causal variant sees only the past and needs no mask.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

DILATIONS = (1, 3, 9)
KERNEL = 7
SMALL = 1e-9


class Snake(nn.Module):
    """x + sin^2(a x) / (a + 1e-9) with one a per channel, 1 at the start.

    Source: Ziyin et al. 2020, "Neural Networks Fail to Learn Periodic Functions and How to Fix It".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to the same shape."""
        alpha = self.alpha.to(x.dtype)
        run: Any = _SnakeFunction.apply if torch.is_grad_enabled() else _snake
        return run(x, alpha)


class _SnakeFunction(torch.autograd.Function):
    """`_snake` that keeps x alone for the way back: training takes less than half the memory of plain autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return _snake(x, alpha)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,), (x, alpha) = grads, ctx.saved_tensors
        inverse = 1 / (alpha + SMALL)
        slope = torch.mul(x, 2 * alpha).sin_()
        # d/da sin^2(a x) / a = (x sin(2 a x) - sin^2(a x) / a) / a
        by_alpha = torch.mul(x, alpha).sin_().square_().mul_(-inverse).addcmul_(x, slope).mul_(grad)
        return slope.mul_(alpha * inverse).add_(1).mul_(grad), by_alpha.sum((0, 2))[:, None] * inverse


def _snake(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.mul(x, alpha).sin_().square_().mul_(1 / (alpha + SMALL)).add_(x)


class ResidualUnit(nn.Module):
    """Snake, dilated convolution over 7 steps, Snake, convolution over 1 step, and the way around them."""

    def __init__(self, channels: int, dilation: int, causal: bool) -> None:
        super().__init__()
        self.snake1, self.snake2 = Snake(channels), Snake(channels)
        self.conv1 = conv(channels, channels, KERNEL, dilation=dilation, causal=causal)
        self.conv2 = conv(channels, channels, 1, causal=causal)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Map (B, C, T) to the same shape; valid: (B, 1, T) ones and zeros, or None."""
        return x + self.conv2(self.snake2(self.conv1(_masked(self.snake1(x), valid))))


class EncoderBlock(nn.Module):
    """Three residual units, then `stride` steps become one and the channels double."""

    def __init__(self, channels: int, stride: int, causal: bool) -> None:
        super().__init__()
        self.units = nn.ModuleList(ResidualUnit(channels, dilation, causal) for dilation in DILATIONS)
        self.snake = Snake(channels)
        self.down = conv(channels, 2 * channels, 2 * stride, stride=stride, causal=causal)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Map (B, C, T) to (B, 2 C, T / stride)."""
        for unit in self.units:
            x = unit(x, valid)
        return self.down(_masked(self.snake(x), valid))


class DecoderBlock(nn.Module):
    """One step becomes `stride` steps of half the channels; then three residual units."""

    def __init__(self, channels: int, stride: int, causal: bool) -> None:
        super().__init__()
        self.snake = Snake(channels)
        self.up = conv_transpose(channels, channels // 2, stride, causal=causal)
        self.units = nn.ModuleList(ResidualUnit(channels // 2, dilation, causal) for dilation in DILATIONS)

    def forward(self, x: Tensor, valid: Tensor | None, valid_after: Tensor | None) -> Tensor:
        """Map (B, C, T) to (B, C / 2, T * stride); the masks belong to the input and the output."""
        x = self.up(_masked(self.snake(x), valid))
        for unit in self.units:
            x = unit(x, valid_after)
        return x


class SnakeEncoder(nn.Module):
    """Waveform (B, 1, T * hop) to latents (B, latent, T).

    Args:
        strides: downsampling of each block, first block first.
        width: channels after the first convolution.
        latent: channels of the result.
        causal: see only the past.

    Source: Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), appendix A.
    """

    def __init__(self, strides: Sequence[int], width: int, latent: int, causal: bool) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.first = conv(1, width, KERNEL, causal=causal)
        self.blocks = nn.ModuleList(EncoderBlock(width * 2**i, s, causal) for i, s in enumerate(self.strides))
        self.snake = Snake(width * 2 ** len(self.strides))
        self.last = conv(width * 2 ** len(self.strides), latent, 3, causal=causal)
        add_weight_norm(self)

    def forward(self, wav: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode wav, zero past each end; mask: (B, T) bool of the valid frames, None when all are (or causal)."""
        rate = math.prod(self.strides)
        x = self.first(wav)
        for block, stride in zip(self.blocks, self.strides, strict=True):
            x = block(x, _valid(mask, rate, x))
            rate //= stride
        return self.last(_masked(self.snake(x), _valid(mask, 1, x)))


class SnakeDecoder(nn.Module):
    """Latents (B, latent, T) to waveform (B, 1, T * hop) in -1..1: the encoder's mirror image."""

    def __init__(self, strides: Sequence[int], width: int, latent: int, causal: bool) -> None:
        super().__init__()
        self.strides = tuple(reversed(strides))
        top = width * 2 ** len(self.strides)
        self.first = conv(latent, top, KERNEL, causal=causal)
        self.blocks = nn.ModuleList(DecoderBlock(top // 2**i, s, causal) for i, s in enumerate(self.strides))
        self.snake = Snake(width)
        self.last = FullPrecision(conv(width, 1, KERNEL, causal=causal))
        add_weight_norm(self)

    def forward(self, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        """Decode; mask: (B, T) bool of the valid frames, None when all are (or causal)."""
        rate = 1
        x = self.first(_masked(latents, _valid(mask, 1, latents)))
        for block, stride in zip(self.blocks, self.strides, strict=True):
            x = block(x, _valid(mask, rate, x), _valid(mask, rate * stride, x))
            rate *= stride
        return torch.tanh(self.last(_masked(self.snake(x), _valid(mask, rate, x))))


class FullPrecision(nn.Module):
    """A layer that runs in the precision of its weights whatever autocast says: audio in bfloat16 hisses at -50 dB."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer."""
        with torch.autocast(x.device.type, enabled=False):
            return self.layer(x.to(next(self.layer.parameters()).dtype))


def conv(
    channels: int, channels_out: int, kernel: int, *, stride: int = 1, dilation: int = 1, causal: bool = False
) -> nn.Module:
    """Return a convolution that turns T * stride steps into T, around each step or (causal) from the past alone."""
    if causal:
        from moshi.modules.conv import StreamingConv1d

        return StreamingConv1d(channels, channels_out, kernel, stride, dilation, causal=True)
    padding = math.ceil(stride / 2) if stride > 1 else (kernel - 1) * dilation // 2
    return nn.Conv1d(channels, channels_out, kernel, stride, padding, dilation)


def conv_transpose(channels: int, channels_out: int, stride: int, *, causal: bool = False) -> nn.Module:
    """Return a transposed convolution of kernel 2 * stride that turns T steps into T * stride."""
    if causal:
        from moshi.modules.conv import StreamingConvTranspose1d

        return StreamingConvTranspose1d(channels, channels_out, 2 * stride, stride, causal=True)
    # Without the output padding an odd stride would lose one step per call.
    return nn.ConvTranspose1d(
        channels, channels_out, 2 * stride, stride, padding=math.ceil(stride / 2), output_padding=stride % 2
    )


def add_weight_norm(network: nn.Module) -> None:
    """Give every convolution a norm and a direction per output channel (input channel where transposed)."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Conv2d):
            weight_norm(module)


def _valid(mask: Tensor | None, rate: int, like: Tensor) -> Tensor | None:
    """Spread a frame mask (B, T) to (B, 1, T * rate) ones and zeros in the number format of `like`."""
    return None if mask is None else mask.repeat_interleave(rate, dim=1)[:, None].to(like.dtype)


def _masked(x: Tensor, valid: Tensor | None) -> Tensor:
    return x if valid is None else x * valid

"""Losses on spectrograms: masked means, log-mel L1 and MSE, and the multi-scale mel distance of two waveforms.

`MultiScaleMel` is the training loss of waveform codecs and the `ms-mel` metric of the quality report.
"""

import warnings

import torch
import torchaudio
from torch import Tensor, nn

WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
NUM_BINS = (5, 10, 20, 40, 80, 160, 320)
FLOOR = 1e-5


def shared_count(count: Tensor) -> Tensor:
    """Return the mean of `count` over all ranks: a sum divided by it has, averaged by DDP, the gradient of one rank.

    A collective call: every rank must make it. Without a process group it returns `count`.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return count
    total = count.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def masked_mean(x: Tensor, mask: Tensor, *, across_ranks: bool = False) -> Tensor:
    """Average x over its valid frames, and over all dimensions between batch and time.

    Args:
        x: (B, ..., F).
        mask: (B, F) bool, True = valid; at least one frame is.
        across_ranks: divide by the mean number of valid frames of all ranks (for training under DDP; collective).

    Returns:
        scalar.
    """
    frames = mask.sum().to(x.dtype)
    weights = mask.reshape(len(mask), *[1] * (x.dim() - 2), mask.shape[-1])
    per_frame = x[0].numel() // x.shape[-1]
    total = x.masked_fill(~weights, 0.0).sum()
    return total / ((shared_count(frames) if across_ranks else frames) * per_frame)


def mel_losses(output: Tensor, target: Tensor, mask: Tensor, *, across_ranks: bool = False) -> tuple[Tensor, Tensor]:
    """Return mean absolute and mean squared difference of two log-mels (B, bins, F) over the frames valid in `mask`."""
    difference = (output - target).float() if output.dtype != torch.float64 else output - target
    l1 = masked_mean(difference.abs(), mask, across_ranks=across_ranks)
    return l1, masked_mean(difference.square(), mask, across_ranks=across_ranks)


class MultiScaleMel(nn.Module):
    """Sum over seven resolutions of the mean absolute difference of log10 magnitude mels; always in float32.

    Windows of 32 to 2048 samples (Hann, hop a quarter, centred, reflect-padded) with 5 to 320 Slaney bins of equal
    area, magnitudes clamped at 1e-5. Audio at -6 dB scores up to 7 log10(2) = 2.1; a polarity flip scores 0.

    Args:
        sample_rate: Hz of both signals.

    Source: Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), section 3.4.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        for window, bins in zip(WINDOWS, NUM_BINS, strict=True):
            self.register_buffer(f"filters_{window}", _filters(sample_rate, window, bins), persistent=False)
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)

    def forward(self, output: Tensor, target: Tensor, mask: Tensor | None = None, across_ranks: bool = False) -> Tensor:
        """Return the distance of two waveforms (B, 1, N) or (B, N), as a scalar; gradients flow into both.

        Args:
            output: the signal to judge; N >= 1025 samples, half the longest window.
            target: the reference.
            mask: (B, N) bool, True = valid, one run from the start of each item; None takes everything. Frames
                centred at or before an item's end count.
            across_ranks: see `masked_mean`.
        """
        width = output.shape[-1]
        pair = torch.stack([output, target]).reshape(2, -1, width)
        ends = pair.new_full((pair.shape[1],), width).long() if mask is None else mask.sum(-1)
        masks = [_frame_mask(ends, width, window // 4) for window in WINDOWS]
        counts = torch.stack([frames.sum() for frames in masks]).to(torch.float32)
        counts = shared_count(counts) if across_ranks else counts
        with torch.autocast(output.device.type, enabled=False):
            sums = torch.stack([self._sum(pair, frames, scale) for scale, frames in enumerate(masks)])
        return (sums / (counts * counts.new_tensor(NUM_BINS))).sum()

    def _sum(self, pair: Tensor, mask: Tensor, scale: int) -> Tensor:
        """Return the summed difference of a pair (2, B, N) at one resolution over the frames of mask (B, F)."""
        output, target = self._log_mel(pair, WINDOWS[scale])
        return (output - target).abs().masked_fill(~mask[:, None], 0.0).sum()

    def _log_mel(self, wav: Tensor, size: int) -> Tensor:
        """Return log10 mels (..., bins, F) of wav (..., N)."""
        window, filters = self.get_buffer(f"window_{size}"), self.get_buffer(f"filters_{size}")
        wav = wav.to(filters.dtype)
        spectrum = torch.stft(
            wav.reshape(-1, wav.shape[-1]), size, size // 4, window=window, center=True, return_complex=True
        )
        mel = filters.T @ spectrum.abs()
        return mel.clamp_min(FLOOR).log10().reshape(*wav.shape[:-1], *mel.shape[-2:])


def _frame_mask(ends: Tensor, width: int, hop: int) -> Tensor:
    """Return a (B, 1 + width // hop) bool mask of the centred frames that start at or before `ends` (B,) samples."""
    return torch.arange(1 + width // hop, device=ends.device) * hop <= ends[:, None]


def _filters(sample_rate: int, window: int, bins: int) -> Tensor:
    """Return the Slaney filterbank (window // 2 + 1, bins); short windows leave some bins empty, as in the paper."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torchaudio.functional.melscale_fbanks(
            window // 2 + 1, 0.0, sample_rate / 2, bins, sample_rate, norm="slaney", mel_scale="slaney"
        )

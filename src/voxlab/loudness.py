"""How loud a recording is: peak of the windowed RMS, true peak between the samples, integrated loudness (EBU R128)."""

import numpy as np
import soxr
from torch import Tensor

from voxlab.audio import Decibels

HOPS = ("sample", "quarter")
_OVERSAMPLING = 4
# Work in pieces of about this many samples, so that memory does not grow with the length of a recording.
_PIECE = 1 << 20


def peak_windowed_rms(wav: Tensor, sample_rate: int, window_ms: float = 250, hop: str = "sample") -> float:
    """Find the largest RMS of any window that lies fully inside; that of the whole, where it is shorter than a window.

    A window has int(sample_rate * window_ms / 1000) samples; the channels of a window count together.

    Args:
        wav: (T,) or (C, T) waveform on the CPU.
        sample_rate: of `wav`, in Hz.
        window_ms: length of the window in milliseconds.
        hop: "sample" looks at every window; "quarter" at every quarter of a window from the first sample on, as
            EncHF_Dataset does, which misses up to a quarter of a window at the end.

    Returns:
        RMS in the unit of `wav` (1 is full scale), exact to 1e-12 relative.

    Raises:
        ValueError: no samples, a window of less than one sample, or an unknown hop.
    """
    samples = np.atleast_2d(wav.numpy())
    window = int(sample_rate * window_ms / 1000)
    if samples.size == 0 or window < 1 or hop not in HOPS:
        raise ValueError(f"{samples.shape} samples, window of {window}, hop={hop}; allowed: {HOPS}")
    num_channels, length = samples.shape
    if length <= window:
        return float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
    step = 1 if hop == "sample" else max(1, window // 4)
    stride = max(1, _PIECE // window) * window
    peak = 0.0
    for first in range(0, length - window + 1, stride):
        sums = _window_sums(samples[:, first : first + stride + window], window)
        valid = sums[: length - window + 1 - first][-first % step :: step]
        peak = max(peak, float(valid.max(initial=0.0)))
    return float(np.sqrt(peak / (window * num_channels)))


def _window_sums(samples: np.ndarray, window: int) -> np.ndarray:
    """Sum the squares of (C, T) over each window that starts in the first T - window samples, and some beyond the end.

    A window is the end of one block of `window` samples and the beginning of the next: sums of squares only, where
    the difference of two running totals would lose a quiet passage after a loud one.
    """
    energy = np.square(samples, dtype=np.float64).sum(0)
    padded = np.zeros(-(-len(energy) // window) * window + window)
    padded[: len(energy)] = energy
    blocks = padded.reshape(-1, window)
    sums = np.cumsum(blocks[:-1, ::-1], axis=1)[:, ::-1]
    sums[:, 1:] += np.cumsum(blocks[1:, :-1], axis=1)
    return sums.ravel()


def true_peak(wav: Tensor, sample_rate: int) -> float:
    """Find the largest magnitude of the waveform between the samples too, at four times the sample rate.

    Never below the largest sample. Four times leaves at most 0.7 dB at the upper end of the band.

    Args:
        wav: (C, T) waveform on the CPU, T >= 1.
        sample_rate: of `wav`, in Hz.

    Source: ITU-R BS.1770-4, Annex 2 (with a longer interpolation filter than its example).
    """
    peak = float(wav.abs().max())
    for channel in wav.numpy():
        stream = soxr.ResampleStream(
            sample_rate, _OVERSAMPLING * sample_rate, 1, dtype="float32", quality="HQ"
        )  # an HQ filter is as flat as VHQ and takes half the time
        for first in range(0, len(channel), _PIECE):
            piece = np.ascontiguousarray(channel[first : first + _PIECE])
            dense = stream.resample_chunk(piece, last=first + _PIECE >= len(channel))
            peak = max(peak, float(np.abs(dense).max(initial=0.0)))
    return peak


def integrated_loudness(wav: Tensor, sample_rate: int) -> Decibels:
    """Measure the gated loudness in LUFS; -inf where every part lies below -70 LUFS.

    Args:
        wav: (C, T) waveform on the CPU, mono or stereo.
        sample_rate: of `wav`, in Hz.

    Raises:
        ValueError: `too_short`: gating needs 0.4 s.

    Source: EBU R128, ITU-R BS.1770-4, by the library pyloudnorm (MIT).
    """
    import pyloudnorm

    meter = pyloudnorm.Meter(sample_rate)
    if wav.shape[-1] < meter.block_size * sample_rate:
        raise ValueError(f"too_short: {wav.shape[-1] / sample_rate:.3f} s; EBU R128 needs {meter.block_size} s")
    return float(meter.integrated_loudness(wav.numpy().T.astype(np.float64)))

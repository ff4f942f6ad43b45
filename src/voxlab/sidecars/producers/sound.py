"""Columns measured on the audio that was encoded: level, loudness, spectrum, onsets, pitch.

Each frame is measured on a window of samples centred on its time; beyond both ends the recording counts as silent.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from voxlab.errors import UserError
from voxlab.sidecars.item import Columns, SidecarItem

_CHUNK = 2048  # frames whose windows are held in memory at a time
_POWER_FLOOR = 1e-12  # -120 dB


@dataclass(frozen=True)
class _Sound:
    """A waveform (N,) float32 and where to measure it, with what several features share."""

    wav: np.ndarray
    times: np.ndarray
    sample_rate: int
    hop_length: int
    n_fft: int
    fmin: float
    fmax: float
    loudness_window: float

    @cached_property
    def magnitudes(self) -> np.ndarray:
        """Magnitude spectrum of each frame, (T, n_fft // 2 + 1) float32, Hann window."""
        window = np.hanning(self.n_fft + 1)[:-1].astype(np.float32)
        parts = [np.abs(np.fft.rfft(block * window)).astype(np.float32) for block in self.blocks(self.n_fft)]
        return np.concatenate(parts)

    @property
    def frequencies(self) -> np.ndarray:
        """Frequency of each bin of the spectrum in Hz."""
        return np.fft.rfftfreq(self.n_fft, 1 / self.sample_rate)

    def starts(self, width: int) -> np.ndarray:
        """First sample of each frame's window of `width` samples, (T,) int64; may lie before the recording."""
        return np.rint(self.times * self.sample_rate - width / 2).astype(np.int64)

    def blocks(self, width: int) -> Iterator[np.ndarray]:
        """Windows of `width` samples, (frames, width) float32, some thousand frames at a time."""
        starts = self.starts(width)
        before = max(0, -int(starts.min()))
        after = max(0, int(starts.max()) + width - len(self.wav))
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(self.wav, (before, after)), width)
        for n in range(0, len(starts), _CHUNK):
            yield windows[starts[n : n + _CHUNK] + before]


def from_audio(
    item: SidecarItem,
    times: np.ndarray,
    *,
    features: Sequence[str],
    n_fft: int = 2048,
    fmin: float = 65.0,
    fmax: float = 1000.0,
    loudness_window: float = 0.4,
) -> Columns:
    """Measure the recording at each token frame.

    Features and their columns:
        rms_db: level of the frame's own samples, dB of full scale; silence is -120.
        loudness: level weighted as the ear does (ITU-R BS.1770) over `loudness_window`, LUFS; silence is -120.7.
        centroid: mean frequency of the magnitude spectrum, Hz; 0 in silence.
        flatness: geometric over arithmetic mean of the power spectrum, 0 (tone) to 1 (noise).
        onset: mean rise of the mel spectrum's level since the frame before, dB.
        f0: fundamental frequency by probabilistic YIN, Hz, 0 where unvoiced; with `voiced` (0 or 1) and
            `voicing` (probability).
        chroma: strength of the twelve pitch classes, `chroma_0` (C) to `chroma_11` (B), the strongest 1.

    Args:
        item: the recording.
        times: (T,) seconds.
        features: some of the above.
        n_fft: samples in the window of the spectral features and of f0.
        fmin: lowest pitch that is looked for, Hz.
        fmax: highest pitch.
        loudness_window: seconds (0.4: momentary loudness, 3: short-term).

    Raises:
        UserError: an unknown feature, or none.
        ValueError: the recording can't be read.

    Source:
        rms_db: EncHF_Dataset's producer of this name. f0: Mauch and Dixon, "pYIN", ICASSP 2014, by librosa (ISC), as
        onset's mel bands and chroma. loudness: ITU-R BS.1770-4, its filters by pyloudnorm (MIT).
    """
    check_audio(features=features)
    wav, sample_rate = item.load_wav()
    hop_length = round(sample_rate / item.frame_rate)
    sound = _Sound(wav[0], times, sample_rate, hop_length, n_fft, fmin, fmax, loudness_window)
    columns = {name: column for feature in features for name, column in FEATURES[feature](sound).items()}
    item.units.update({name: UNITS[name] for name in columns if name in UNITS})
    return columns


def check_audio(*, features: Sequence[str], **_: Any) -> None:
    """Check the settings of `from_audio`; raises UserError."""
    unknown = [name for name in features if name not in FEATURES]
    if unknown or not features:
        raise UserError(f"producers.from_audio.features={list(features)}: choose some of {', '.join(FEATURES)}.")


def _rms_db(sound: _Sound) -> Columns:
    power = [np.mean(block.astype(np.float64) ** 2, axis=1) for block in sound.blocks(sound.hop_length)]
    return {"rms_db": 20 * np.log10(np.sqrt(np.concatenate(power) + _POWER_FLOOR) + _POWER_FLOOR)}


def _loudness(sound: _Sound) -> Columns:
    """Mean power of the K-weighted signal, over the part of the window that lies inside the recording."""
    from pyloudnorm import Meter
    from scipy.signal import lfilter

    weighted = sound.wav.astype(np.float64)
    for stage in Meter(sound.sample_rate)._filters.values():
        weighted = stage.passband_gain * np.asarray(lfilter(stage.b, stage.a, weighted))
    total = np.concatenate([[0.0], np.cumsum(weighted**2)])
    width = max(1, round(sound.loudness_window * sound.sample_rate))
    first, last = (np.clip(sound.starts(width) + n, 0, len(weighted)) for n in (0, width))
    power = (total[last] - total[first]) / np.maximum(last - first, 1)
    return {"loudness": -0.691 + 10 * np.log10(np.maximum(power, _POWER_FLOOR))}


def _centroid(sound: _Sound) -> Columns:
    total = sound.magnitudes.sum(1)
    weighted = sound.magnitudes @ sound.frequencies
    return {"centroid": np.where(total > 0, weighted / np.where(total > 0, total, 1), 0.0)}


def _flatness(sound: _Sound) -> Columns:
    power = np.maximum(sound.magnitudes.astype(np.float64) ** 2, 1e-10)
    return {"flatness": np.exp(np.log(power).mean(1)) / power.mean(1)}


def _onset(sound: _Sound) -> Columns:
    from librosa.filters import mel

    bands = (sound.magnitudes**2) @ mel(sr=sound.sample_rate, n_fft=sound.n_fft).T
    level = 10 * np.log10(np.maximum(bands.astype(np.float64), 1e-10))
    level = np.maximum(level, level.max() - 80)
    return {"onset": np.maximum(np.diff(level, axis=0, prepend=level[:1]), 0).mean(1)}


def _f0(sound: _Sound) -> Columns:
    """Pitch on a grid of whole hops, read at the frames' times."""
    from librosa import pyin

    before = sound.n_fft // 2 - sound.hop_length // 2
    grid = -(-len(sound.wav) // sound.hop_length)
    after = max(0, (grid - 1) * sound.hop_length + sound.n_fft - before - len(sound.wav))
    pitch, voiced, probability = pyin(
        np.pad(sound.wav, (max(before, 0), after))[max(-before, 0) :],
        fmin=sound.fmin,
        fmax=sound.fmax,
        sr=sound.sample_rate,
        frame_length=sound.n_fft,
        hop_length=sound.hop_length,
        center=False,
        fill_na=0.0,
    )
    nearest = np.floor(sound.times * sound.sample_rate / sound.hop_length).astype(np.int64).clip(0, grid - 1)
    return {"f0": pitch[nearest], "voiced": voiced[nearest].astype(np.float32), "voicing": probability[nearest]}


def _chroma(sound: _Sound) -> Columns:
    from librosa.feature import chroma_stft

    rows = chroma_stft(S=(sound.magnitudes**2).T, sr=sound.sample_rate, n_fft=sound.n_fft, tuning=0.0)
    return {f"chroma_{n}": row for n, row in enumerate(rows)}


FEATURES: dict[str, Callable[[_Sound], Columns]] = {
    "rms_db": _rms_db,
    "loudness": _loudness,
    "centroid": _centroid,
    "flatness": _flatness,
    "onset": _onset,
    "f0": _f0,
    "chroma": _chroma,
}
UNITS = {"rms_db": "dB", "loudness": "LUFS", "centroid": "Hz", "onset": "dB", "f0": "Hz"}

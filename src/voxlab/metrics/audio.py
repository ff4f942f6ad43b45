"""How far decoded audio is from its original: spectral distances, SI-SDR, PESQ, STOI, plain waveform differences.

All take two mono signals (N,) float32 of one length and rate, and raise `NotMeasurable` where a value would mislead.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
import torchaudio
from torch import Tensor

from voxlab.audio import Decibels, Seconds, compute_num_samples
from voxlab.losses.spectral import FLOOR, MultiScaleMel
from voxlab.mel import LogMel, Mel
from voxlab.metrics.errors import NotMeasurable

SILENCE = 1e-4  # a signal whose largest sample is below this is silent
DB_PER_NAT: Decibels = 20 / math.log(10)
WIDE_RATE, SPEECH_RATE, NARROW_RATE = 24000, 16000, 8000
BAND_LIMIT = 8000.0  # Hz: nothing lies above in speech that was recorded at 16 kHz
_SUPERB_SCALES = ((2048, 150), (512, 80))
_SHORTEST_PESQ: Seconds = 0.25
_TOO_SHORT_FOR_STOI = 1e-5  # what pystoi returns then, with a warning


def is_silent(wav: Tensor) -> bool:
    """True where no sample of wav reaches 1e-4 of full scale."""
    return wav.numel() == 0 or float(wav.abs().max()) < SILENCE


def crop(reference: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Cut both signals (N,) to the shorter one: padding would hide an error of length in the other measures."""
    length = min(len(reference), len(output))
    return reference[:length], output[:length]


def align(reference: Tensor, output: Tensor, sample_rate: int, max_shift: Seconds = 0.02) -> tuple[Tensor, Tensor, int]:
    """Shift the output to where it correlates best with the reference, and cut both to what they share.

    Args:
        reference: (N,).
        output: (N,).
        sample_rate: Hz.
        max_shift: largest shift to either side.

    Returns:
        reference and output of one length, and the samples by which the output was late (negative: early).
    """
    limit = min(compute_num_samples(max_shift, sample_rate), len(reference) - 1)
    size = 1 << (2 * len(reference) - 1).bit_length()
    spectrum = torch.fft.rfft(output.double(), size) * torch.fft.rfft(reference.double(), size).conj()
    correlation = torch.fft.irfft(spectrum, size)
    shifts = torch.arange(-limit, limit + 1)
    late = int(shifts[correlation[shifts].abs().argmax()])  # a flipped output is late, not wrong, here
    if late >= 0:
        return reference[: len(reference) - late], output[late:], late
    return reference[-late:], output[:late], late


# ---- spectral distances --------------------------------------------------------------------------------------------


def ms_mel(reference: Tensor, output: Tensor) -> float:
    """Return the multi-scale mel distance of two signals at 24 kHz, see `losses.spectral.MultiScaleMel`.

    LibriSpeech against silence scores about 10.5, at -6 dB 1.7, with its polarity flipped 0.
    """
    _need_samples(reference, 1025)
    with torch.no_grad():
        return float(_multi_scale_mel(WIDE_RATE)(output[None], reference[None]))


@functools.lru_cache(maxsize=4)
def _multi_scale_mel(sample_rate: int) -> MultiScaleMel:
    return MultiScaleMel(sample_rate)


def mel_l1(reference: Tensor, output: Tensor, limit: float | None = None) -> float:
    """Return the mean absolute difference of the log-mels of two signals at 24 kHz, in nats (times 8.686: dB).

    Args:
        reference: (N,).
        output: (N,).
        limit: Hz; bins that reach further up are left out. Above 8 kHz there is nothing in audio that was recorded at
            16 kHz, so those bins flatter.
    """
    _need_samples(reference, 513)
    extractor = _log_mel()
    with torch.no_grad():
        difference = (extractor(output[None]) - extractor(reference[None])).abs()[0]
    return float(difference[: _bins_below(limit)].mean())


@functools.lru_cache(maxsize=1)
def _log_mel() -> LogMel:
    return LogMel(Mel(sample_rate=WIDE_RATE))


def _bins_below(limit: float | None) -> int | None:
    """Count the bins of the 24 kHz mel that lie below `limit` Hz altogether: 86 of 100 below 8 kHz."""
    if limit is None:
        return None
    mel = Mel(sample_rate=WIDE_RATE)
    top = 2595 * math.log10(1 + mel.sample_rate / 2 / 700)
    edges = torch.linspace(0, top, mel.num_bins + 2, dtype=torch.float64)
    upper = 700 * (10 ** (edges[2:] / 2595) - 1)
    return int((upper <= limit).sum())


def mel_superb(reference: Tensor, output: Tensor) -> float:
    """Return the mel distance of the Codec-SUPERB benchmark, of two signals at 16 kHz.

    Two resolutions (windows 2048 and 512, 150 and 80 bins): mean |log10 a^2 - log10 b^2| + mean |a - b| of the
    magnitude mels, the logarithm's clamped at 1e-5.

    Source: Wu et al. 2024, "Codec-SUPERB", and its scorer (voidful/Codec-SUPERB, SoundCodec/metrics.py).
    """
    _need_samples(reference, 1025)
    return sum(_superb_scale(reference, output, window, bins) for window, bins in _SUPERB_SCALES)


def _superb_scale(reference: Tensor, output: Tensor, window: int, bins: int) -> float:
    filters = _superb_filters(window, bins).T
    return _log_and_linear(filters @ _magnitudes(reference, window), filters @ _magnitudes(output, window))


@functools.lru_cache(maxsize=4)
def _superb_filters(window: int, bins: int) -> Tensor:
    scale = {"norm": "slaney", "mel_scale": "slaney"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some of the 80 bins of the short window are empty, as upstream
        return torchaudio.functional.melscale_fbanks(window // 2 + 1, 0.0, SPEECH_RATE / 2, bins, SPEECH_RATE, **scale)


def stft_distance(reference: Tensor, output: Tensor) -> float:
    """Return the STFT distance of the Codec-SUPERB benchmark: `mel_superb` without filters; signals at 16 kHz."""
    _need_samples(reference, 1025)
    windows = (2048, 512)
    return sum(_log_and_linear(_magnitudes(reference, size), _magnitudes(output, size)) for size in windows)


def _magnitudes(wav: Tensor, window: int) -> Tensor:
    """Return the magnitudes (window // 2 + 1, F) of an STFT with a Hann window and a hop of a quarter of it."""
    return torch.stft(wav, window, window // 4, window=torch.hann_window(window), return_complex=True).abs()


def _log_and_linear(reference: Tensor, output: Tensor) -> float:
    logs = [2 * magnitudes.clamp_min(FLOOR).log10() for magnitudes in (reference, output)]
    return float((logs[0] - logs[1]).abs().mean() + (reference - output).abs().mean())


# ---- speech measures -----------------------------------------------------------------------------------------------


def si_sdr(reference: Tensor, output: Tensor) -> Decibels:
    """Return the scale-invariant signal-to-distortion ratio; blind to gain and polarity.

    Source: Le Roux et al. 2019, "SDR - half-baked or well done?".

    Raises:
        NotMeasurable: a signal is silent (the ratio would be 0 dB, which looks like a result), or so short that it is
            like any other (two samples: 150 dB).
    """
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    _need_sound(reference, output)
    _need_samples(reference, 1025)
    value = float(scale_invariant_signal_distortion_ratio(output.double(), reference.double(), zero_mean=True))
    return _finite(value)


def pesq(reference: Tensor, output: Tensor, band: str) -> float:
    """Return the quality that PESQ predicts, 1 (bad) to 4.6 (the same).

    Args:
        reference: (N,) at 16 kHz ("wb") or 8 kHz ("nb").
        output: (N,).
        band: "wb" (ITU-T P.862.2) or "nb" (P.862.1).

    Raises:
        NotMeasurable: a signal is silent or without an utterance, or shorter than a quarter of a second; or the
            package pesq is not installed.
    """
    try:
        from pesq import PesqError
    except ImportError as error:
        raise NotMeasurable("the package pesq is not installed") from error
    from torchmetrics.functional.audio import perceptual_evaluation_speech_quality

    rate = {"wb": SPEECH_RATE, "nb": NARROW_RATE}[band]
    _need_sound(reference, output)
    _need_samples(reference, compute_num_samples(_SHORTEST_PESQ, rate) + 1)
    try:
        return _finite(float(perceptual_evaluation_speech_quality(output, reference, rate, band)))
    except PesqError as error:
        raise NotMeasurable(f"PESQ finds no utterance ({type(error).__name__})") from error


def stoi(reference: Tensor, output: Tensor, *, extended: bool = False) -> float:
    """Return the short-time objective intelligibility of two signals at 16 kHz, about 0 to 1.

    Source: Taal et al. 2011; extended: Jensen and Taal 2016.

    Raises:
        NotMeasurable: the reference is silent, or its louder parts are shorter than 30 frames (0.4 s).
    """
    from torchmetrics.functional.audio import short_time_objective_intelligibility

    if is_silent(reference):
        raise NotMeasurable("the original is silent")
    _need_samples(reference, SPEECH_RATE * 2 // 5)
    with warnings.catch_warnings(), _same_noise():
        warnings.simplefilter("ignore", RuntimeWarning)
        value = float(short_time_objective_intelligibility(output, reference, SPEECH_RATE, extended=extended))
    if abs(value - _TOO_SHORT_FOR_STOI) < 1e-9:
        raise NotMeasurable("fewer than 30 frames of speech")
    return _finite(value)


@contextlib.contextmanager
def _same_noise() -> Iterator[None]:
    """Let pystoi, which draws from NumPy's global generator to avoid divisions by 0, give equal values each time."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


# ---- plain differences, no measure of quality ----------------------------------------------------------------------


def mean_squared_error(reference: Tensor, output: Tensor) -> float:
    """Return the mean squared difference of the samples; silence and a flipped polarity score well."""
    return float((reference - output).double().square().mean())


def mean_absolute_error(reference: Tensor, output: Tensor) -> float:
    """Return the mean absolute difference of the samples; silence and a flipped polarity score well."""
    return float((reference - output).double().abs().mean())


def peak_error(reference: Tensor, output: Tensor) -> float:
    """Return the largest absolute difference of the samples."""
    return float((reference - output).abs().max())


# ---- guards --------------------------------------------------------------------------------------------------------


def _need_samples(wav: Tensor, count: int) -> None:
    if len(wav) < count:
        raise NotMeasurable("the recording is too short")


def _need_sound(reference: Tensor, output: Tensor) -> None:
    if is_silent(reference):
        raise NotMeasurable("the original is silent")
    if is_silent(output):
        raise NotMeasurable("the output is silent")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise NotMeasurable(f"the result is {value}")
    return value

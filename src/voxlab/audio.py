"""Audio files, sample rates and time: everything that reads, writes, resamples or counts samples.

Waveforms are float32 tensors (C, T) in [-1, 1]. Files go through soundfile, never through torchaudio's loaders.
"""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

Seconds = float
Decibels = float

_PCM16_SCALE = 2.0**15
# A damaged header can claim 1 Hz, and resampling that to 24 kHz would fill the memory.
_FILE_RATES = range(1_000, 768_001)


def load(source: Path | str | bytes, sample_rate: int | None = None) -> tuple[Tensor, int]:
    """Read a complete audio file (WAV of any width, FLAC, Ogg, MP3), from disk or from memory.

    A WAV that is cut short gives the samples that are there; other formats are refused then.

    Args:
        source: path of the file, or its content.
        sample_rate: rate to resample to, in Hz; None keeps the file's own.

    Returns:
        (C, T) float32 waveform with T >= 1 finite samples, and its sample rate in Hz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `bad_audio:unreadable` (with libsndfile's reason), `bad_audio:empty` (no samples),
            `bad_audio:nonfinite` (with the first sample that is NaN or infinite) or `bad_audio:sample_rate` (the file
            claims a rate outside 1 to 768 kHz).
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        samples, own_rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, MemoryError) as error:  # a damaged header may claim terabytes
        raise ValueError(f"bad_audio:unreadable: {getattr(error, 'error_string', str(error))}") from error
    if own_rate not in _FILE_RATES:
        raise ValueError("bad_audio:sample_rate")
    wav = _checked(torch.from_numpy(np.ascontiguousarray(samples.T)))
    if sample_rate is None or sample_rate == own_rate:
        return wav, own_rate
    return resample(wav, own_rate, sample_rate), sample_rate


def decode_audio_bytes(data: bytes, sample_rate: int) -> Tensor:
    """Decode a complete audio file held in memory to a (C, T) waveform at `sample_rate`; raises as `load` does."""
    return load(bytes(data), sample_rate)[0]


def _checked(wav: Tensor) -> Tensor:
    if wav.numel() == 0:
        raise ValueError("bad_audio:empty")
    if not bool(torch.isfinite(wav).all()):
        first = int((~torch.isfinite(wav)).any(0).int().argmax())
        raise ValueError(f"bad_audio:nonfinite: sample {first} is NaN or infinite")
    return wav


def to_mono(wav: Tensor) -> Tensor:
    """Average the channels: (..., C, T) -> (..., 1, T)."""
    return wav.mean(-2, keepdim=True)


def resample(wav: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate with a linear-phase, band-limited filter; sample 0 stays at time 0.

    Beyond its end a waveform counts as silent, so one that is padded with zeros for a batch and cut to
    `compute_resampled_length` afterwards equals the one resampled alone.

    Args:
        wav: (..., T) float32, on any device.
        from_rate: present rate in Hz.
        to_rate: wanted rate in Hz.

    Returns:
        (..., `compute_resampled_length(T, from_rate, to_rate)`) float32, on the same device.
    """
    if from_rate == to_rate or wav.numel() == 0:
        return wav
    length = compute_resampled_length(wav.shape[-1], from_rate, to_rate)
    # soxr rather than torchaudio.functional.resample: VHQ is flat to 0.91 of the band with aliases below -150 dB, is
    # as fast or faster on a CPU, and its memory doesn't grow with the rates (torchaudio's kernel has about
    # to_rate * from_rate / gcd**2 entries: 4 GB for 44,101 -> 24,000 Hz). One more input sample than the output needs
    # makes soxr round its length up.
    tail = -(-from_rate // to_rate)
    rows = torch.nn.functional.pad(wav.detach().cpu().reshape(-1, wav.shape[-1]), (0, tail)).T
    resampled = soxr.resample(np.ascontiguousarray(rows.numpy()), from_rate, to_rate, quality="VHQ")
    samples = np.ascontiguousarray(resampled[:length].T)
    return torch.from_numpy(samples).reshape(*wav.shape[:-1], length).to(wav.device)


def quantise_pcm16(wav: Tensor) -> Tensor:
    """Round to what a 16-bit file holds: multiples of 2**-15 in [-1, 1 - 2**-15]; any shape, same device.

    `load(encode_flac(wav, rate))` gives exactly this, so codes computed from it belong to the stored audio.
    Samples that aren't finite pass through, for the caller to see.
    """
    rounded = (wav * _PCM16_SCALE).round().clamp(-_PCM16_SCALE, _PCM16_SCALE - 1) / _PCM16_SCALE
    return torch.where(torch.isfinite(wav), rounded, wav)


def encode_flac(wav: Tensor, sample_rate: int) -> bytes:
    """Encode (C, T) as a 16-bit FLAC file; equal input gives equal bytes.

    Raises:
        ValueError: `bad_audio:empty` or `bad_audio:nonfinite`.
    """
    return _encode(wav, sample_rate, "FLAC")


def encode_wav(wav: Tensor, sample_rate: int) -> bytes:
    """Encode (C, T) as a 16-bit WAV file; equal input gives equal bytes, errors as for `encode_flac`."""
    return _encode(wav, sample_rate, "WAV")


def _encode(wav: Tensor, sample_rate: int, container: str) -> bytes:
    # Integers go in, because libsndfile scales floats by 2**15 - 1 on writing yet by 2**-15 on reading.
    pcm = (quantise_pcm16(_checked(wav.detach().cpu())) * _PCM16_SCALE).to(torch.int16)
    file = io.BytesIO()
    soundfile.write(file, pcm.T.numpy(), sample_rate, format=container, subtype="PCM_16")
    return file.getvalue()


def encode_float32(wav: Tensor) -> bytes:
    """Return (C, T) as raw little-endian float32, channels interleaved: `numpy.frombuffer(data, "<f4")` reads it."""
    return wav.detach().cpu().T.numpy().astype("<f4").tobytes()


def compute_num_samples(duration: Seconds, sample_rate: int) -> int:
    """Convert a duration to samples, exactly: the decimal number that `duration` prints as, halves rounded up.

    Raises:
        ValueError: the duration is negative, infinite or NaN.
    """
    if not 0 <= duration < float("inf"):
        raise ValueError(f"a duration of {duration} s has no number of samples; give a finite one >= 0")
    return int(Fraction(str(duration)) * sample_rate + Fraction(1, 2))


def compute_duration(num_samples: int, sample_rate: int) -> Seconds:
    """Convert samples to seconds; `compute_num_samples` of the result gives `num_samples` back."""
    return num_samples / sample_rate


def compute_num_frames(num_samples: int, hop_length: int) -> int:
    """Count the frames of `hop_length` samples that cover `num_samples`; the last one may be part empty."""
    return -(-num_samples // hop_length)


def compute_resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Count the instants k / to_rate before the end of `num_samples` at `from_rate` (rounds up)."""
    return -(-num_samples * to_rate // from_rate)


def compute_spectrogram(wav: Tensor, *, n_fft: int = 1024, hop_length: int = 256, floor: Decibels = -100.0) -> Tensor:
    """Compute the level of each frequency over time; a full-scale sine is 0 dB at its bin.

    Column n is centred on sample n * hop_length (Hann window, silence beyond both ends); row f is
    f * sample_rate / n_fft Hz.

    Args:
        wav: (C, T) waveform, averaged to mono first.
        n_fft: length of the window in samples.
        hop_length: samples between columns.
        floor: lowest level returned, in dB.

    Returns:
        (n_fft // 2 + 1, 1 + T // hop_length) float32 in dB.
    """
    window = torch.hann_window(n_fft, device=wav.device)
    spectrum = torch.stft(to_mono(wav)[0], n_fft, hop_length, window=window, pad_mode="constant", return_complex=True)
    amplitude = spectrum.abs() * (2 / window.sum())
    return (20 * torch.log10(amplitude.clamp_min(1e-12))).clamp_min(floor)

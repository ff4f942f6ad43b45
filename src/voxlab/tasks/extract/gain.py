"""One recording of stage normalize: read it, convert it, measure it, and give it the gain that reaches the target."""

import io
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxlab import audio
from voxlab.audio import Decibels
from voxlab.data.items import AudioItem
from voxlab.errors import UserError
from voxlab.ledger import Record
from voxlab.loudness import HOPS, integrated_loudness, peak_windowed_rms, true_peak

SILENCE = 1e-8
CHOICES = {
    "method": ("rms", "lufs"),
    "hop": HOPS,
    "clip": ("limit", "error", "allow"),
    "silence": ("keep", "skip", "error"),
    "format": ("pcm16", "float32"),
}
# Digits after the point of the report's numbers, None for whole numbers and words.
COLUMNS: dict[str, int | None] = {
    "sample_rate_in": None,
    "channels_in": None,
    "num_samples_in": None,
    "num_samples": None,
    "peak_rms_in": 8,
    "gain_db": 4,
    "gain_wanted_db": 4,
    "peak_rms_out": 8,
    "true_peak_out": 6,
    "status": None,
}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What decides the bytes of a normalized file; the arguments of `normalize`."""

    sample_rate: int
    channels: int
    method: str
    target_rms: float
    window_ms: float
    hop: str
    target_lufs: float
    ceiling: float
    clip: str
    silence: str
    format: str

    def check(self) -> None:
        """Raise a UserError that names the first key that is wrong, and what it may be."""
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                raise UserError(f"normalize.{key}={getattr(self, key)}: choose {', '.join(allowed)}.")
        ranges = {"target_rms": (0, 1), "window_ms": (0, 60_000), "target_lufs": (-70, 0), "ceiling": (0, 1)}
        for key, (low, high) in ranges.items():
            if not low < getattr(self, key) <= high:
                raise UserError(f"normalize.{key}={getattr(self, key)}: give more than {low}, at most {high}.")
        if self.channels not in (1, 2):
            raise UserError(f"normalize writes 1 or 2 channels, not {self.channels}.")
        if self.sample_rate * self.window_ms < 1000:
            raise UserError(f"normalize.window_ms={self.window_ms} is less than a sample at {self.sample_rate} Hz.")


def normalize_item(item: AudioItem, rules: Rules) -> tuple[Record, bytes | None]:
    """Return the record of a recording and its WAV file; None for one that fails or is skipped."""
    try:
        record, wav = _normalize_wav(*_load(item), rules)
    except OSError as error:
        return {"error": f"unreadable_file: {error.strerror or error}"}, None
    except ValueError as error:
        return {"error": str(error)}, None
    except MemoryError:
        return {"error": "out_of_memory: the recording is too long to be held; cut it"}, None
    if record["status"] == "skipped":
        return record | {"error": "silent_audio: skipped"}, None
    return record, _encode(wav, rules)


def _load(item: AudioItem) -> tuple[Tensor, int]:
    """Read a recording: (C, T) and its sample rate.

    Raises:
        OSError: it can't be read.
        ValueError: what is wrong, see `audio.load`.
    """
    data = item.read()
    if not data:
        raise ValueError("bad_audio:empty: a file of no bytes")
    return audio.load(data)


def _normalize_wav(wav: Tensor, sample_rate: int, rules: Rules) -> tuple[Record, Tensor]:
    """Convert (C, T) and bring it to the target.

    Raises:
        ValueError: `silent_audio`, `clipping` or `too_short`, where the rules or the method refuse that.
    """
    record: Record = {"sample_rate_in": sample_rate, "channels_in": wav.shape[0], "num_samples_in": wav.shape[1]}
    wav = audio.resample(_mix(wav, rules.channels), sample_rate, rules.sample_rate)
    peak_rms, highest = _peak_rms(wav, rules), true_peak(wav, rules.sample_rate)
    wanted = _gain(wav, peak_rms, rules)
    gain, status = (1.0, _silent(rules)) if wanted is None else _guard(wanted, highest, rules)
    wav = _round(wav * gain, rules)
    values = {
        "num_samples": wav.shape[-1],
        "peak_rms_in": peak_rms,
        "gain_db": _decibels(gain),
        "gain_wanted_db": _decibels(gain if wanted is None else wanted),
        "peak_rms_out": _peak_rms(wav, rules),
        "true_peak_out": highest * gain,
        "status": status,
    }
    return record | {key: _rounded(value, COLUMNS[key]) for key, value in values.items()}, wav


def _mix(wav: Tensor, channels: int) -> Tensor:
    """Average (C, T) to mono in float64; two channels stay for a target of two."""
    if wav.shape[0] == 1 or wav.shape[0] == channels:
        return wav
    return wav.mean(0, keepdim=True, dtype=torch.float64).float()


def _peak_rms(wav: Tensor, rules: Rules) -> float:
    return peak_windowed_rms(wav, rules.sample_rate, rules.window_ms, rules.hop)


def _gain(wav: Tensor, peak_rms: float, rules: Rules) -> float | None:
    """Return the factor that reaches the target; None for silence."""
    if peak_rms < SILENCE:
        return None
    if rules.method == "rms":
        return rules.target_rms / peak_rms
    loudness = integrated_loudness(wav.expand(rules.channels, -1), rules.sample_rate)  # as it will be written
    return 10 ** ((rules.target_lufs - loudness) / 20) if math.isfinite(loudness) else None


def _silent(rules: Rules) -> str:
    if rules.silence == "error":
        raise ValueError("silent_audio")
    return {"keep": "silent", "skip": "skipped"}[rules.silence]


def _guard(gain: float, highest: float, rules: Rules) -> tuple[float, str]:
    """Return the gain to apply, given the highest true peak before it, and the status."""
    if gain * highest <= rules.ceiling:
        return gain, "ok"
    if rules.clip == "error":
        raise ValueError(
            f"clipping: the true peak would be {gain * highest:.3f}, above the ceiling of {rules.ceiling:g}; lower the "
            "target or use clip=limit"
        )
    # A hair below the ceiling, so that no sample exceeds it after it is rounded to float32.
    return (rules.ceiling * (1 - 1e-6) / highest, "limited") if rules.clip == "limit" else (gain, "over")


def _round(wav: Tensor, rules: Rules) -> Tensor:
    return audio.quantise_pcm16(wav) if rules.format == "pcm16" else wav


def _encode(wav: Tensor, rules: Rules) -> bytes:
    wav = wav.expand(rules.channels, -1)
    if rules.format == "pcm16":
        return audio.encode_wav(wav, rules.sample_rate)
    from scipy.io import wavfile  # libsndfile writes the time of day into float files

    file = io.BytesIO()
    wavfile.write(file, rules.sample_rate, wav.T.contiguous().numpy())
    return file.getvalue()


def _decibels(gain: float) -> Decibels:
    return 20 * math.log10(gain)


def _rounded(value: Any, digits: int | None) -> Any:
    return value if digits is None else round(value, digits) + 0.0  # + 0.0 turns -0.0 into 0.0

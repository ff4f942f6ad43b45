"""A dozen short tones in nested folders: mixed formats, rates and channels, parameters in names and in a table."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from voxlab.storage import atomic_write_bytes


class _Take(NamedTuple):
    folder: str
    pitch: int
    level: str
    suffix: str
    subtype: str
    sample_rate: int
    channels: int
    seconds: float


_TAKES = (
    _Take("session1", 57, ".75", "wav", "PCM_16", 44100, 1, 1.0),
    _Take("session1", 60, ".50", "wav", "PCM_24", 44100, 2, 0.7),
    _Take("session1", 64, ".25", "flac", "PCM_16", 48000, 1, 1.4),
    _Take("session1", 67, "1.00", "ogg", "VORBIS", 44100, 1, 1.2),
    _Take("session2", 57, ".50", "wav", "PCM_16", 16000, 1, 2.5),
    _Take("session2", 60, ".25", "wav", "FLOAT", 48000, 2, 0.6),
    _Take("session2", 64, ".75", "flac", "PCM_24", 22050, 2, 1.1),
    _Take("session2", 67, ".50", "mp3", "MPEG_LAYER_III", 44100, 1, 1.5),
    _Take("session3/bright", 57, ".25", "wav", "PCM_16", 8000, 1, 2.0),
    _Take("session3/bright", 60, "1.00", "wav", "PCM_U8", 22050, 1, 0.9),
    _Take("session3/bright", 64, ".50", "aiff", "PCM_16", 48000, 1, 0.8),
    _Take("session3/bright", 67, ".75", "wav", "PCM_16", 24000, 1, 1.3),
)
_FORMATS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "aiff": "AIFF"}
_OGG_HEADER, _OGG_SERIAL, _OGG_CHECKSUM, _OGG_SEGMENTS = 27, 14, 22, 26


def write_sample(root: Path) -> None:
    """Write the sample corpus below `root`, unless it is there; the same bytes each time.

    The pitch (a MIDI note) and the level of each tone stand in its name; metadata.csv adds brightness and take.
    """
    takes = [take for take in _TAKES if _FORMATS[take.suffix] in soundfile.available_formats()]
    rows = ["file_name,session,brightness,take"]
    for number, take in enumerate(takes, 1):
        name = f"{take.folder}/tone_pitch_{take.pitch}.00_amp_{take.level}.{take.suffix}"
        session, brightness = take.folder[:8], _brightness(take)
        rows.append(f"{name},{session},{brightness},{number}")
        if not (root / name).exists():
            atomic_write_bytes(root / name, _file(take))
    if not (root / "metadata.csv").exists():
        atomic_write_bytes(root / "metadata.csv", ("\n".join(rows) + "\n").encode())


def _brightness(take: _Take) -> float:
    return 0.8 if take.folder.endswith("bright") else 0.4


def _file(take: _Take) -> bytes:
    wav = _tone(take)
    file = io.BytesIO()
    if take.subtype == "FLOAT":
        from scipy.io import wavfile  # libsndfile writes the time of day into float files

        wavfile.write(file, take.sample_rate, wav)
    else:
        soundfile.write(file, wav, take.sample_rate, format=_FORMATS[take.suffix], subtype=take.subtype)
    return _without_serial(file.getvalue()) if take.suffix == "ogg" else file.getvalue()


def _tone(take: _Take) -> np.ndarray:
    """Return (T, C) float32: a tone with harmonics that swells in 50 ms and decays; channels differ in level."""
    times = np.arange(round(take.seconds * take.sample_rate)) / take.sample_rate
    pitch = 440 * 2 ** ((take.pitch - 69) / 12)
    numbers = np.arange(1, int(0.45 * take.sample_rate / pitch) + 1)[:40, None]
    gains = _brightness(take) ** (numbers - 1)
    tone = (gains * np.sin(2 * np.pi * pitch * numbers * times + numbers)).sum(0)
    envelope = (
        np.minimum(times / 0.05, 1) * np.exp(-times / take.seconds) * np.minimum((take.seconds - times) / 0.05, 1)
    )
    tone *= envelope / np.abs(tone).max()
    return np.stack([0.9 * float(take.level) * tone / (1 + channel) for channel in range(take.channels)], 1).astype(
        "f4"
    )


def _without_serial(ogg: bytes) -> bytes:
    """Set the serial number, which libsndfile draws at random, to 0 in every page, and mend the checksums.

    Source: RFC 3533, section 6.
    """
    data, start = bytearray(ogg), 0
    while start < len(data):
        segments = data[start + _OGG_SEGMENTS]
        body = sum(data[start + _OGG_HEADER : start + _OGG_HEADER + segments])
        page = slice(start, start + _OGG_HEADER + segments + body)
        data[start + _OGG_SERIAL : start + _OGG_SERIAL + 4] = bytes(4)
        data[start + _OGG_CHECKSUM : start + _OGG_CHECKSUM + 4] = bytes(4)
        data[start + _OGG_CHECKSUM : start + _OGG_CHECKSUM + 4] = _ogg_checksum(bytes(data[page])).to_bytes(4, "little")
        start = page.stop
    return bytes(data)


def _ogg_checksum(page: bytes) -> int:
    """Compute CRC-32 with the usual polynomial, not reflected, from 0 and without final inversion."""
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1) ^ (0x104C11DB7 if checksum & 0x80000000 else 0)
    return checksum

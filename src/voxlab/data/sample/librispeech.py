"""Six synthetic speakers in LibriSpeech's layout: vowels and hisses instead of words, at their speakers' pitch."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from voxlab.audio import encode_flac
from voxlab.progress import track
from voxlab.storage import atomic_write_bytes

SAMPLE_RATE = 16_000
_LETTER_SECONDS = 0.075


class _Speaker(NamedTuple):
    subset: str
    number: int
    sex: str
    pitch: float
    chapters: int


# With the default fractions and seed, speaker 1018 falls to the validation split.
_SPEAKERS = (
    _Speaker("train-clean-100", 1003, "M", 105.0, 2),
    _Speaker("train-clean-100", 1007, "F", 215.0, 2),
    _Speaker("train-clean-100", 1012, "F", 190.0, 2),
    _Speaker("train-clean-100", 1018, "M", 125.0, 2),
    _Speaker("dev-clean", 1102, "F", 230.0, 1),
    _Speaker("test-clean", 1103, "M", 95.0, 1),
)
_TEXTS = (
    "THE RIVER RAN LOW BETWEEN THE GREY STONES",
    "NOBODY KNEW",
    "A LANTERN HUNG OVER THE DOOR",
)
_HEAD = "; synthetic speakers, in the columns of the real file\n;ID  |SEX| SUBSET           |MINUTES| NAME\n"


def write_sample(folder: Path) -> None:
    """Write the sample corpus as the folder LibriSpeech, unless it is there; the same bytes each time."""
    lines = [_HEAD]
    for speaker in track(_SPEAKERS, "sample corpus", "speakers"):
        seconds = 0.0
        for chapter in range(1, speaker.chapters + 1):
            seconds += _write_chapter(folder, speaker, 10 * speaker.number + chapter)
        lines.append(
            f"{speaker.number:<4} | {speaker.sex} | {speaker.subset:<16} | {seconds / 60:.2f}  | Synthetic "
            f"{speaker.number}\n"
        )
    _write(folder / "SPEAKERS.TXT", "".join(lines).encode())


def _write_chapter(folder: Path, speaker: _Speaker, chapter: int) -> float:
    name = f"{speaker.number}-{chapter}"
    below = folder / speaker.subset / str(speaker.number) / str(chapter)
    texts = _TEXTS if chapter % 10 == 1 else _TEXTS[2:]
    for number, text in enumerate(texts):
        path = below / f"{name}-{number:04d}.flac"
        if not path.exists():
            wav = _speak(text, speaker.pitch, np.random.default_rng((speaker.number, chapter, number)))
            _write(path, encode_flac(torch.from_numpy(wav)[None], SAMPLE_RATE))
    transcript = "".join(f"{name}-{number:04d} {text}\n" for number, text in enumerate(texts))
    _write(below / f"{name}.trans.txt", transcript.encode())
    return sum(map(len, texts)) * _LETTER_SECONDS


def _write(path: Path, data: bytes) -> None:
    if not path.exists():
        atomic_write_bytes(path, data)


def _speak(text: str, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Return (T,) float32: 75 ms for each letter, over a faint hiss, because digital silence is rare in recordings."""
    length = round(_LETTER_SECONDS * SAMPLE_RATE)
    times = np.arange(length) / SAMPLE_RATE
    melody = pitch * (1.15 - 0.3 * np.arange(len(text)) / len(text) + 0.05 * rng.standard_normal(len(text)))
    letters = [_letter(letter, tone, times, rng) for letter, tone in zip(text, melody, strict=True)]
    wav = np.concatenate(letters)
    return (0.25 * wav + 2e-4 * rng.standard_normal(len(wav))).astype(np.float32)


def _letter(letter: str, pitch: float, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (T,): a vowel of two formants, a weak hiss for the consonants of breath, a pause for a space."""
    swell = np.sin(np.pi * (times + times[1] / 2) / _LETTER_SECONDS) ** 0.5
    if letter == " ":
        return np.zeros_like(times)
    if letter in "CFHKPSTXZ":
        return 0.1 * swell * np.diff(rng.standard_normal(len(times) + 1))
    place = (ord(letter) - ord("A")) / 25
    numbers = np.arange(1, int(5000 / pitch) + 1)[:, None]
    first, second = 300 + 500 * place, 2300 - 1300 * place
    gains = sum(np.exp(-(((numbers * pitch - formant) / 150) ** 2)) for formant in (first, second)) + 0.05 / numbers
    return swell * (gains * np.sin(2 * np.pi * numbers * pitch * times)).sum(0) / np.sum(gains)

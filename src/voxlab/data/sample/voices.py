"""Voices made of harmonics: babble with and without a smile, laughter, hesitation, breath; and a chord for music."""

from typing import NamedTuple

import numpy as np

_CONSONANTS, _VOWELS = "bdgklmnprst", "aeiou"
# First and second formant of each vowel in Hz; the third is the same for all.
_FORMANTS = {"a": (750, 1250), "e": (480, 1900), "i": (300, 2150), "o": (480, 950), "u": (330, 1150)}
_THIRD, _SMILING_THIRD = 2550.0, 3350.0
_WIDTHS, _GAINS = (120, 160, 220), (1.0, 0.6, 0.5)  # Hz, and level, of the three formants
_HIGHEST = 5_000.0
_VOICE_LEVEL = 0.1


class Voice(NamedTuple):
    """A voice: its pitch in Hz."""

    pitch: float


def speak(voice: Voice, rng: np.random.Generator, sample_rate: int, *, smiling: bool) -> tuple[str, np.ndarray]:
    """Return a word of one to three syllables, and (T,) samples of it with 50 to 100 ms of silence at the end.

    A smile raises the third formant and leaves loudness as it is.
    """
    syllables = [f"{rng.choice(list(_CONSONANTS))}{rng.choice(list(_VOWELS))}" for _ in range(rng.integers(1, 4))]
    parts = [_syllable(text, voice, rng, sample_rate, smiling=smiling) for text in syllables]
    parts.append(np.zeros(int(sample_rate * rng.uniform(0.05, 0.1))))
    return "".join(syllables), np.concatenate(parts)


def laugh(voice: Voice, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Return (T,) samples of three to six times "ha", 0.5 to 1.2 s, falling in pitch; no louder than speech."""
    times = int(rng.integers(3, 7))
    pitch = voice.pitch * 1.6 * np.linspace(1.1, 0.85, times)
    parts = []
    for tone in pitch:
        parts += [_hiss(0.06, rng, sample_rate, 0.4), _vowel((750, 1350, _THIRD), tone, 0.11, sample_rate)]
        parts.append(np.zeros(int(sample_rate * 0.02)))
    return np.concatenate(parts)


def hum(voice: Voice, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Return (T,) samples of a long even vowel of 0.25 to 0.5 s."""
    return _vowel((500, 1400, _THIRD), voice.pitch * 0.9, rng.uniform(0.25, 0.5), sample_rate)


def breathe(rng: np.random.Generator, sample_rate: int, *, loud: bool) -> np.ndarray:
    """Return (T,) samples of 0.2 to 0.5 s of noise: a breath, or something loud that falls over."""
    return _hiss(rng.uniform(0.2, 0.5), rng, sample_rate, 2.5 if loud else 0.3)


def chord(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Return (T,) samples of 1.5 to 3 s of three tones."""
    times = np.arange(int(sample_rate * rng.uniform(1.5, 3.0))) / sample_rate
    root = 220 * 2 ** (rng.integers(0, 12) / 12)
    tones = [np.sin(2 * np.pi * root * ratio * times) for ratio in (1, 1.25, 1.5, 2, 3)]
    return _levelled(np.sum(tones, 0) * _swell(len(times)))


def _syllable(text: str, voice: Voice, rng: np.random.Generator, sample_rate: int, *, smiling: bool) -> np.ndarray:
    """Return a short hiss and a vowel whose formants vary by 6 %."""
    wobble = rng.normal(1, 0.06, 3)
    formants = (*_FORMANTS[text[1]], _SMILING_THIRD if smiling else _THIRD)
    tuned = tuple(float(formant * factor) for formant, factor in zip(formants, wobble, strict=True))
    pitch = voice.pitch * float(rng.normal(1, 0.08))
    level = 10 ** (rng.normal(0, 3) / 20)
    vowel = _vowel(tuned, pitch, rng.uniform(0.09, 0.16), sample_rate)
    return level * np.concatenate([_hiss(rng.uniform(0.02, 0.05), rng, sample_rate, 0.5), vowel])


def _vowel(formants: tuple[float, ...], pitch: float, seconds: float, sample_rate: int) -> np.ndarray:
    """Return (T,) samples: harmonics of a pitch, weighted by three formants, at the level of a voice."""
    turns = np.exp(2j * np.pi * pitch / sample_rate * np.arange(int(seconds * sample_rate)))
    numbers = np.arange(1, int(_HIGHEST / pitch) + 1)
    distances = (numbers[:, None] * pitch - np.array(formants)) / np.array(_WIDTHS)
    gains = np.exp(-(distances**2)) @ _GAINS + 0.02 / numbers
    wav, wave = np.zeros(len(turns)), np.ones(len(turns), dtype=complex)
    for gain in gains:  # the sine of each multiple, without computing it
        wave = wave * turns
        wav += gain * np.imag(wave)
    return _levelled(wav * _swell(len(wav)))


def _hiss(seconds: float, rng: np.random.Generator, sample_rate: int, level: float) -> np.ndarray:
    noise = np.diff(rng.standard_normal(int(seconds * sample_rate) + 1))
    return level * _levelled(noise * _swell(len(noise)))


def _swell(length: int) -> np.ndarray:
    return np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 0.5


def _levelled(wav: np.ndarray) -> np.ndarray:
    return wav * (_VOICE_LEVEL / np.sqrt(np.mean(wav**2)))

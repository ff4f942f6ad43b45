"""One clip of BEAT2: where its files are, and its motion as it is used, cut to what motion and audio share."""

import hashlib
import logging
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from voxlab import audio
from voxlab.audio import Seconds
from voxlab.errors import UserError
from voxlab.motion.clip import Motion
from voxlab.motion.files import inspect_motion

log = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
WARN_MISMATCH_S = 0.25
_SHORTEST_S = 0.1


@dataclass(frozen=True)
class Clip:
    """A recording with motion and audio.

    Attributes:
        id: such as 2_scott_0_1_1.
        split: train, validation or test.
        speaker: number, as text.
        emotion: see `beat2_files.ClipName`.
        motion: .npz.
        wav: audio of any rate.
        textgrid: words in time; None: there is no such file.
        sem: semantic labels; None: there is no such file.
        offset_s: second of the wav at which the motion starts; None: both start together.
    """

    id: str
    split: str
    speaker: str
    emotion: str
    motion: Path
    wav: Path
    textgrid: Path | None
    sem: Path | None
    offset_s: Seconds | None = None


@dataclass(frozen=True)
class Reading:
    """How motion files are read; see `Beat2`."""

    fps: int
    allow_resample: bool = False
    fix: str = "none"
    clean_first_seconds: Seconds = 0.0
    clean_final_seconds: Seconds = 0.0


@dataclass(frozen=True)
class Extent:
    """The part of a clip that is used.

    Attributes:
        first: frame of the motion file (at the wanted rate) that becomes frame 0.
        num_frames: frames that motion and audio share.
        wav_start: second of the wav that belongs to frame 0.
        mismatch_s: how much longer the audio is than the motion, before anything is cut.
    """

    first: int
    num_frames: int
    wav_start: Seconds
    mismatch_s: Seconds


@dataclass(frozen=True)
class Sound:
    """What is known of a wav after all of it was read: samples a channel, Hz, channels, remarks."""

    num_samples: int
    sample_rate: int
    channels: int
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedClip:
    """A clip as it is used: its motion cut to the extent, what is odd about its files, and their digests."""

    motion: Motion
    extent: Extent
    sound: Sound
    remarks: tuple[str, ...]
    digests: dict[str, str]


def load_clip(clip: Clip, reading: Reading) -> LoadedClip:
    """Read and check all of a clip's motion and audio.

    Raises:
        UserError: a file is absent, damaged, or of another kind than wanted; the two share no frame.
    """
    motion, remarks = inspect_motion(
        clip.motion, fps=reading.fps, allow_resample=reading.allow_resample, fix=reading.fix
    )
    content = _bytes(clip.wav)
    sound = inspect_sound(clip.wav, content)
    extent = find_extent(motion.num_frames, sound, clip.offset_s, reading)
    if extent.num_frames < 1:
        raise UserError(
            f"{clip.id}: motion ({motion.num_frames / reading.fps:.2f} s) and audio "
            f"({sound.num_samples / sound.sample_rate:.2f} s) share no frame; see its offset and data.clean_*_seconds."
        )
    digests = {"motion": digest(_bytes(clip.motion)), "wav": digest(content)}
    return LoadedClip(cut(motion, extent), extent, sound, (*remarks, *sound.remarks), digests)


def read_clip_motion(clip: Clip, reading: Reading, extent: Extent) -> Motion:
    """Read a clip's motion alone, cut to an extent that is known; what is odd about it has been told before."""
    motion, _ = inspect_motion(clip.motion, fps=reading.fps, allow_resample=reading.allow_resample, fix=reading.fix)
    return cut(motion, extent)


def cut(motion: Motion, extent: Extent) -> Motion:
    """Return the frames of an extent."""
    part = slice(extent.first, extent.first + extent.num_frames)
    return Motion(motion.poses[part], motion.trans[part], motion.expressions[part], motion.betas, motion.fps)


def find_extent(num_frames: int, sound: Sound, offset_s: Seconds | None, reading: Reading) -> Extent:
    """Find the frames that motion and audio share, in exact arithmetic; `num_frames` may come out as 0 or less."""
    fps, offset = reading.fps, Fraction(str(offset_s or 0))
    duration = Fraction(sound.num_samples, sound.sample_rate)
    heard = math.floor((duration - offset) * fps)
    first = max(0, math.ceil(-offset * fps)) + audio.compute_num_samples(reading.clean_first_seconds, fps)
    end = min(num_frames, heard) - audio.compute_num_samples(reading.clean_final_seconds, fps)
    mismatch = duration - offset - Fraction(num_frames, fps)
    return Extent(first, max(0, end - first), float(offset + Fraction(first, fps)), float(mismatch))


def describe_mismatch(mismatch_s: Seconds) -> str:
    """Spell how unequal audio and motion are."""
    return f"its audio is {abs(mismatch_s):.3f} s {'longer' if mismatch_s > 0 else 'shorter'} than its motion"


def inspect_sound(path: Path, content: bytes) -> Sound:
    """Read a wav of any rate, subtype and number of channels as a whole, and say what is odd about it.

    Raises:
        UserError: it can't be read, holds NaN, or is shorter than 0.1 s.
    """
    try:
        wav, sample_rate = audio.load(content)
    except ValueError as error:
        raise UserError(f"{path}: {error}. Expected a readable wav of at least {_SHORTEST_S} s.") from None
    if wav.shape[-1] < _SHORTEST_S * sample_rate:
        seconds = wav.shape[-1] / sample_rate
        raise UserError(f"{path} has {seconds:.3f} s of audio; expected at least {_SHORTEST_S} s. Copy it again.")
    remarks = []
    if (sample_rate, len(wav)) != (SAMPLE_RATE, 1):
        remarks.append(f"audio of {sample_rate} Hz, {len(wav)} channels: is converted to {SAMPLE_RATE} Hz, 1 channel")
    if not np.any(wav.numpy()):
        remarks.append("the audio is digital silence")
    return Sound(wav.shape[-1], sample_rate, len(wav), tuple(remarks))


def digest(content: bytes) -> str:
    """Return the first 32 hex digits of the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()[:32]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}.") from None

"""Synthetic speakers in BEAT2's layout who gesture as they speak: what moves, and how far, follows from what is heard.

There are three kinds of words. Each has a vowel, a letter and a gesture of its own (left arm, right arm, both), which
starts and ends with the word and is as large as the word is loud; so sound foretells motion, and other sound doesn't.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from voxlab.audio import encode_wav
from voxlab.data.beat2_files import MOTION, SEMANTIC, SPLIT_TABLE, TEXT, WAV
from voxlab.motion.clip import NUM_BETAS, NUM_EXPRESSIONS, NUM_JOINTS, Motion
from voxlab.motion.files import write_motion
from voxlab.motion.skeleton import HAND_JOINTS, JAW
from voxlab.progress import track
from voxlab.storage import atomic_write_bytes

FPS, SAMPLE_RATE = 30, 16_000
KINDS = 3
_WORDS = (("mala", "nora"), ("tiki", "zeto"), ("bubo", "gugu"))
_FORMANTS = ((750.0, 1300.0), (320.0, 2300.0), (400.0, 850.0))  # Hz, of the vowel of each kind
_TAIL = 0.2  # s by which audio is longer than motion
_EDGE = 0.5  # s of rest at both ends


class _Speaker(NamedTuple):
    number: int
    name: str
    pitch: float  # Hz
    reach: float  # how far the arms go
    lean: float  # rad


class _Take(NamedTuple):
    speaker: int
    kind: int  # 0 speech, 1 conversation
    number: int
    type: str
    seconds: int


_SPEAKERS = {2: _Speaker(2, "scott", 110.0, 1.0, 0.03), 4: _Speaker(4, "lawrence", 175.0, 0.6, -0.06)}
_TAKES = (
    *(_Take(2, 0, number, "test", 10) for number in (1, 2, 65)),
    *(_Take(2, 0, number, "val", 8) for number in (9, 10)),
    *(_Take(2, 0, number, "train", 8) for number in (17, 18, 19, 20, 66, 74, 82, 96)),
    _Take(2, 1, 1, "additional", 8),
    *(_Take(4, 0, number, "train", 8) for number in (17, 18, 67)),
    *(_Take(4, 0, number, kind, 8) for number, kind in ((1, "test"), (9, "val"))),
)


class _Word(NamedTuple):
    kind: int
    text: str
    start: float
    end: float
    loudness: float  # 0.5 to 1


def write_sample(folder: Path) -> bool:
    """Write the sample corpus as a folder beat_..._v2.0.0, the same bytes each time; False: it is there already."""
    table = folder / SPLIT_TABLE
    if table.exists():  # it is written last
        return False
    rows = ["id,type"]
    for order, take in enumerate(track(_TAKES, "sample corpus", "clips")):
        speaker = _SPEAKERS[take.speaker]
        clip_id = f"{speaker.number}_{speaker.name}_{take.kind}_{take.number}_{take.number}"
        _write_take(folder, clip_id, take, speaker, order)
        rows.append(f"{clip_id},{take.type}")
    atomic_write_bytes(table, ("\n".join(rows) + "\n").encode())
    return True


def _write_take(folder: Path, clip_id: str, take: _Take, speaker: _Speaker, order: int) -> None:
    rng = np.random.default_rng((11, take.speaker, take.kind, take.number))
    words = _talk(take.seconds, rng)
    write_motion(folder / MOTION / f"{clip_id}.npz", _move(words, take.seconds, speaker, rng))
    wav = _speak(words, take.seconds + _TAIL, speaker, rng)
    atomic_write_bytes(folder / WAV / f"{clip_id}.wav", _encode(wav, as_float=order == 0))
    # The first one as MFA writes it, and both forms in UTF-8 and UTF-16, for readers to prove themselves.
    grid = _long_grid(words, take.seconds + _TAIL) if order % 2 else _short_grid(words, take.seconds + _TAIL)
    atomic_write_bytes(folder / TEXT / f"{clip_id}.TextGrid", grid.encode("utf-16" if order == 3 else "utf-8"))
    atomic_write_bytes(folder / SEMANTIC / f"{clip_id}.txt", _semantic(words).encode())


def _talk(seconds: float, rng: np.random.Generator) -> list[_Word]:
    """Let words and pauses take turns until the time is up."""
    words: list[_Word] = []
    now = _EDGE
    while True:
        length = round(float(rng.uniform(0.4, 0.7)), 3)
        if now + length > seconds - _EDGE:
            return words
        kind = int(rng.integers(KINDS))
        loudness = float(rng.uniform(0.5, 1.0))
        words.append(_Word(kind, str(rng.choice(_WORDS[kind])), round(now, 3), round(now + length, 3), loudness))
        now += length + float(rng.choice([0.06, 0.15, 0.5], p=[0.5, 0.3, 0.2]))


# ---- motion ---------------------------------------------------------------------------------------------------------


def _move(words: list[_Word], seconds: float, speaker: _Speaker, rng: np.random.Generator) -> Motion:
    num_frames = int(seconds * FPS)
    times = np.arange(num_frames) / FPS
    drive = np.stack([_activity(words, kind, times) for kind in range(KINDS)])  # (3, T) 0 to 1
    left, right = drive[0] + 0.8 * drive[2], drive[1] + 0.8 * drive[2]
    joints = _posture(speaker)[None].repeat(num_frames, 0)
    for side, pull in ((0, left), (1, right)):
        _raise_arm(joints, side, speaker.reach * pull)
    spine = 0.10 * (left - right)
    joints[:, [3, 6, 9], 1] += spine[:, None] / 3
    joints[:, [12, 15], 0] += 0.15 * drive.sum(0)[:, None]
    joints[:, 15, 1] += 0.2 * (right - left)
    joints[:, 0, 1] += 0.3 * spine
    joints[:, [1, 2], 2] += 0.06 * (right - left)[:, None]
    joints[:, [4, 5], 0] += 0.08 * np.stack([left, right], 1)
    joints[:, JAW, 0] += 0.12 * drive.sum(0)
    every = np.random.default_rng(23).standard_normal((KINDS, NUM_JOINTS * 3))
    joints += 0.03 * (drive.T @ every).reshape(joints.shape)  # so that no joint moves by chance alone
    joints += 0.003 * np.stack([_drift(num_frames, rng) for _ in range(NUM_JOINTS * 3)], 1).reshape(joints.shape)
    sway = np.stack([0.03 * (right - left), -0.01 * drive.sum(0), 0.015 * drive[2]], 1)
    wander = 0.001 * np.stack([_drift(num_frames, rng) for _ in range(3)], 1)
    start = np.array([rng.uniform(-0.2, 0.2), 1.3, rng.uniform(-0.2, 0.2)])
    betas = 0.5 * np.random.default_rng((13, speaker.number)).standard_normal(NUM_BETAS)
    return Motion(
        poses=joints.reshape(num_frames, -1).astype(np.float32),
        trans=start + sway + wander,
        expressions=_expressions(drive, num_frames, rng).astype(np.float32),
        betas=betas.astype(np.float32),
        fps=FPS,
    )


def _activity(words: list[_Word], kind: int, times: np.ndarray) -> np.ndarray:
    """Return (T,) how far the gesture of one kind has gone: a smooth hill over each of its words."""
    hills = np.zeros_like(times)
    for word in words:
        if word.kind == kind:
            place = np.clip((times + 0.5 / FPS - word.start) / (word.end - word.start), 0, 1)
            hills += word.loudness * np.sin(np.pi * place) ** 2
    return hills


def _posture(speaker: _Speaker) -> np.ndarray:
    """Return (55, 3) rad: arms down, elbows bent, fingers half closed."""
    pose = np.random.default_rng((17, speaker.number)).normal(0, 0.02, (NUM_JOINTS, 3))
    pose[[3, 6, 9], 0] += speaker.lean
    pose[[16, 17], 2] += (-1.0, 1.0)
    pose[[18, 19], 1] += (-0.9, 0.9)
    pose[HAND_JOINTS, 2] += np.repeat((-0.4, 0.4), len(HAND_JOINTS) // 2)
    return pose


def _raise_arm(joints: np.ndarray, side: int, pull: np.ndarray) -> None:
    """Add a stroke of one arm, side 0 left, in place: it goes out and up, the elbow bends and the fingers open."""
    sign = (1, -1)[side]
    joints[:, 13 + side, 2] += sign * 0.10 * pull
    joints[:, 16 + side, 2] += sign * 0.7 * pull
    joints[:, 16 + side, 1] -= sign * 0.4 * pull
    joints[:, 18 + side, 1] -= sign * 0.6 * pull
    joints[:, 20 + side, 0] += 0.3 * pull
    fingers = HAND_JOINTS[side * 15 : side * 15 + 15]
    joints[:, fingers, 2] += sign * 0.35 * pull[:, None]
    joints[:, fingers, 1] += 0.1 * pull[:, None] * np.linspace(-1, 1, 15)


def _expressions(drive: np.ndarray, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return (T, 100): a fixed mix of the kinds, the first ones most, around a fixed mean."""
    fixed = np.random.default_rng(19)
    sizes = np.linspace(1.2, 0.3, NUM_EXPRESSIONS)
    mix, mean = fixed.standard_normal((KINDS, NUM_EXPRESSIONS)) * sizes, 0.3 * fixed.standard_normal(NUM_EXPRESSIONS)
    noise = np.stack([_drift(num_frames, rng) for _ in range(NUM_EXPRESSIONS)], 1)
    return mean + drive.T @ mix + 0.05 * noise


def _drift(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return (T,) a slow wander of about unit size, which no sound foretells."""
    rates, phases = rng.uniform(0.1, 0.6, 3), rng.uniform(0, 2 * np.pi, 3)
    times = np.arange(num_frames)[:, None] / FPS
    return np.sin(2 * np.pi * rates * times + phases).sum(1) / 1.2


# ---- sound and text -------------------------------------------------------------------------------------------------


def _speak(words: list[_Word], seconds: float, speaker: _Speaker, rng: np.random.Generator) -> np.ndarray:
    """Return (S,) float32: a sung vowel for each word, its loudness as its gesture's, over a faint hiss."""
    wav = 3e-4 * rng.standard_normal(round(seconds * SAMPLE_RATE))
    for word in words:
        start, end = round(word.start * SAMPLE_RATE), round(word.end * SAMPLE_RATE)
        times = np.arange(end - start) / SAMPLE_RATE
        pitch = speaker.pitch * (1 + 0.03 * rng.standard_normal())
        numbers = np.arange(1, int(4000 / pitch) + 1)[:, None]
        gains = sum(np.exp(-(((numbers * pitch - formant) / 160) ** 2)) for formant in _FORMANTS[word.kind])
        vowel = ((gains + 0.03 / numbers) * np.sin(2 * np.pi * numbers * pitch * times)).sum(0) / np.sum(gains)
        swell = np.sin(np.pi * np.arange(len(times)) / len(times)) ** 0.7
        wav[start:end] += 0.6 * word.loudness * swell * vowel
    return wav.astype(np.float32)


def _encode(wav: np.ndarray, *, as_float: bool) -> bytes:
    """Return a WAV file; most of BEAT2's hold 16-bit integers, some 32-bit floats."""
    if not as_float:
        return encode_wav(torch.from_numpy(wav)[None], SAMPLE_RATE)
    data = wav.astype("<f4").tobytes()  # by hand: libsndfile adds the time of writing
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, SAMPLE_RATE, 4 * SAMPLE_RATE, 4, 32)
    content = b"WAVE" + layout + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(content)) + content


def _intervals(words: list[_Word], seconds: float) -> list[tuple[float, float, str]]:
    """Return words and the silence between them, without gaps."""
    edges = [0.0, *(edge for word in words for edge in (word.start, word.end)), seconds]
    texts = ["", *(text for word in words for text in (word.text, ""))]
    spans = zip(edges[:-1], edges[1:], texts, strict=True)
    return [(start, end, text) for start, end, text in spans if end > start]


def _short_grid(words: list[_Word], seconds: float) -> str:
    spans = _intervals(words, seconds)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", f"{seconds:g}", "<exists>", "1"]
    lines += ['"IntervalTier"', '"words"', "0", f"{seconds:g}", str(len(spans))]
    lines += [line for start, end, text in spans for line in (f"{start:g}", f"{end:g}", f'"{text}"')]
    return "\n".join(lines) + "\n"


def _long_grid(words: list[_Word], seconds: float) -> str:
    spans = _intervals(words, seconds)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {seconds:g}"]
    lines += ["tiers? <exists>", "size = 1", "item []:", "    item [1]:", '        class = "IntervalTier"']
    lines += ['        name = "words"', "        xmin = 0", f"        xmax = {seconds:g}"]
    lines.append(f"        intervals: size = {len(spans)}")
    for number, (start, end, text) in enumerate(spans, 1):
        lines += [f"        intervals [{number}]:", f"            xmin = {start:g}", f"            xmax = {end:g}"]
        lines.append(f'            text = "{text}"')
    return "\n".join(lines) + "\n"


def _semantic(words: list[_Word]) -> str:
    """Return a line for each word: gestures of both arms mean something, the others only beat time."""
    lines = []
    for word in words:
        name, score = ("03_metaphoric_h", 0.8) if word.kind == 2 else ("01_beat_align", 0.1)
        span = f"{word.start:g}\t{word.end:g}\t{word.end - word.start:.3f}"
        lines.append(f"{name}\t{span}\t{score}\t{word.text}\n")
    return "".join(lines)

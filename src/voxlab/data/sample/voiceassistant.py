"""A few synthetic dialogues in VoiceAssistant-400K's schema, file names and row groups."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

from voxlab.storage import atomic_path

SAMPLE_RATE = 22050
NUM_FILES = 2
ROWS_PER_FILE = 10
ROWS_PER_GROUP = 4

_PAIRS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("How many days are in a leap year?", "A leap year has three hundred and sixty six days."),
    ("Why is the sky blue?", "Air scatters blue light more than red light."),
    ("What is two plus two?", "Two plus two is four."),
    ("Can you hear me?", "Yes, I can hear you clearly."),
)
SCHEMA = pa.schema(
    [
        ("split_name", pa.string()),
        ("index", pa.string()),
        ("round", pa.string()),
        ("question", pa.string()),
        ("question_audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("answer", pa.string()),
        ("answer_snac", pa.string()),
    ]
)


def write_sample(root: Path, seed: int = 0) -> None:
    """Write the sample corpus below `root`, unless it is there; the same seed gives the same rows."""
    for number in range(NUM_FILES):
        path = root / "data" / f"train-{number:05d}-of-{NUM_FILES:05d}.parquet"
        if path.exists():
            continue
        first = number * ROWS_PER_FILE
        rows = [_row(index, np.random.default_rng((seed, index))) for index in range(first, first + ROWS_PER_FILE)]
        with atomic_path(path) as temporary:
            table = pa.Table.from_pylist(rows, schema=SCHEMA)
            pq.write_table(table, temporary, row_group_size=ROWS_PER_GROUP, compression="snappy")


def _row(index: int, rng: np.random.Generator) -> dict:
    question, answer = _PAIRS[index % len(_PAIRS)]
    name = f"sample_{index // 2}_{index % 2}.wav"
    return {
        "split_name": "sample",
        "index": str(index // 2),
        "round": str(index % 2),
        "question": question,
        "question_audio": {"bytes": _wav_bytes(_babble(question, rng)), "path": name},
        "answer": answer,
        "answer_snac": _tokens(len(answer) // 4, rng),
    }


def _tokens(groups: int, rng: np.random.Generator) -> str:
    """Spell random SNAC tokens in the data set's layout; 11.7 groups make a second."""
    codes = rng.integers(0, 4096, (groups, 7))
    return " ".join("# " + " ".join(map(str, group)) for group in codes)


def _babble(text: str, rng: np.random.Generator) -> np.ndarray:
    """Return (T,) float32: one vowel-like tone, 60 ms long, for each letter; a pause for each space."""
    pitch = rng.uniform(100, 220)
    times = np.arange(round(0.06 * SAMPLE_RATE)) / SAMPLE_RATE
    envelope = np.hanning(len(times))
    tones = [_letter(letter, pitch, times) * envelope for letter in text]
    return (0.2 * np.concatenate(tones)).astype(np.float32)


def _letter(letter: str, pitch: float, times: np.ndarray) -> np.ndarray:
    if not letter.isalpha():
        return np.zeros_like(times)
    first_formant = 300 + 25 * (ord(letter.lower()) - ord("a"))
    harmonics = np.arange(1, 20)[:, None]
    gains = np.exp(-(((harmonics * pitch - first_formant) / 300) ** 2)) + 0.1 / harmonics
    return (gains * np.sin(2 * np.pi * harmonics * pitch * times)).sum(0) / gains.sum()


def _wav_bytes(wav: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, wav, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()

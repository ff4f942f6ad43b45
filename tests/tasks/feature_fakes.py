"""Features and a corpus of episodes for tests of the store: quick, interleaved, and broken on request."""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import soundfile
import torch
from torch import Tensor

from voxlab import audio
from voxlab.data.episodes import MIX, Annotation, Event, View, Word
from voxlab.data.items import AudioItem, file_stamp
from voxlab.features.base import Chunk, FeatureInfo, Recording
from voxlab.features.logmel import LogMelFeatures

SAMPLE_RATE, HOP, DIM = 16_000, 1280, 3


class FakeFeatures:
    """Mean, largest and smallest sample of each frame; `rows` recordings at once, their chunks in turns.

    Args:
        rows: recordings at once.
        trouble: part of a recording's key -> "nan", "short", "raise" (with others in work), "raise alone", or "words".
    """

    licence: ClassVar[str] = "no weights"

    def __init__(self, *, rows: int = 2, trouble: dict[str, str] | None = None, dtype: str = "float16") -> None:
        self.rows, self.trouble, self.dtype = rows, trouble or {}, dtype
        self.seen: list[str] = []

    @property
    def info(self) -> FeatureInfo:
        return FeatureInfo("fake", DIM, SAMPLE_RATE / HOP, SAMPLE_RATE, "none", self.dtype)  # pyright: ignore

    def settings(self) -> dict[str, Any]:
        return {"name": "fake", "align": "raw"}

    def fingerprint(self) -> dict[str, Any]:
        return {**vars(self.info), **self.settings()}

    def to(self, device: torch.device | str) -> Self:
        return self

    def context_frames(self, num_frames: int) -> np.ndarray | None:
        return np.arange(num_frames, dtype=np.int32)

    def stream(self, recordings: Iterable[Recording]) -> Iterator[Chunk]:
        source, open_rows = iter(recordings), []
        while True:
            while len(open_rows) < self.rows and (recording := next(source, None)) is not None:
                self.seen.append(recording.key)
                open_rows.append(self._chunks(recording, len(open_rows)))
            if not open_rows:
                return
            for row in list(open_rows):
                chunk = next(row, None)
                if chunk is None:
                    open_rows.remove(row)
                else:
                    yield chunk

    def _chunks(self, recording: Recording, others: int) -> Iterator[Chunk]:
        trouble = next((kind for part, kind in self.trouble.items() if part in recording.key), "")
        if trouble == "words" and recording.words is not None:
            recording.words()
        agent, other = recording.load()
        values = values_of(other if agent is None else agent - other, self.dtype)
        codes = np.arange(2 * len(values), dtype=np.int16).reshape(-1, 2)
        if trouble == "nan":
            values[len(values) // 2] = np.nan
        if trouble == "short":
            values = values[:-1]
        for start in range(0, len(values), 7):
            if trouble == "raise" and start:
                raise RuntimeError("out of memory")
            stop = start + 7
            yield Chunk(recording.key, "codes", start, codes[start:stop], stop >= len(codes))
            yield Chunk(recording.key, "features", start, values[start:stop], stop >= len(values))


def values_of(wav: Tensor, dtype: str = "float16") -> np.ndarray:
    """What `FakeFeatures` makes of (1, S) audio: (T, 3)."""
    frames = audio.compute_num_frames(wav.shape[-1], HOP)
    padded = torch.nn.functional.pad(wav[0], (0, frames * HOP - wav.shape[-1])).view(frames, HOP)
    values = torch.stack([padded.mean(1), padded.amax(1), padded.amin(1)], 1)
    return (values if dtype == "float16" else values * 1000).numpy().astype(dtype)


class DyingLogMel(LogMelFeatures):
    """Log-mel features whose process is killed in the middle of the second recording, when DIE is set."""

    def stream(self, recordings: Iterable[Recording]) -> Iterator[Chunk]:
        keys: set[str] = set()
        for chunk in super().stream(recordings):
            keys.add(chunk.key)
            if len(keys) == 2 and "DIE" in os.environ:
                half = len(chunk.values) // 2
                yield Chunk(chunk.key, chunk.name, chunk.start, chunk.values[:half], False)
                os.kill(os.getpid(), signal.SIGKILL)
            yield chunk


@dataclass
class FakeCorpus:
    """Episodes of noise under `folder`, "train" and "test", with laughter every few seconds; two views each if asked.

    Args:
        folder: of the recordings.
        seconds: name -> length; names that start with "t" are of the split test.
        views: of each episode.
        late: an event and a word so many seconds after the end.
    """

    folder: Path
    seconds: dict[str, float]
    views_each: int = 1
    late: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: {"speakers": "mix", "mask_laughter": "none"})
    uses_oracle_mask: bool = False
    licence: ClassVar[str] = "made up: no licence"

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, (name, seconds) in enumerate(self.seconds.items()):
            path = self.folder / f"{name}.wav"
            if not path.exists():
                noise = np.random.default_rng(number).uniform(-0.3, 0.3, round(seconds * SAMPLE_RATE))
                soundfile.write(path, noise, SAMPLE_RATE)

    def items(self) -> list[AudioItem]:
        paths = sorted(self.folder.glob("*.wav"))
        return [self._item(path, "test" if path.stem.startswith("t") else "train") for path in paths]

    def _item(self, path: Path, split: str) -> AudioItem:
        metadata = {"episode": f"Show, {path.stem[0]}: {path.stem}?", "show": path.stem[0]}
        return AudioItem(f"{split}/{path.stem}", path, split, file_stamp(path), metadata)

    def check(self) -> list[str]:
        return []

    def annotation(self, item: AudioItem) -> Annotation:
        duration = soundfile.info(item.path).duration
        late = self.late.get(item.path.stem, 0.0)
        starts = np.arange(2.0, duration - 1, 5.0)
        events = [Event("Laughter", float(start), float(start) + 0.4, 0.9) for start in starts]
        events += [Event("Um", duration + late - 0.1, duration + late)] if late else []
        times = np.arange(0, duration, 0.01)
        vad = np.stack([times, times % 1.0], 1).astype(np.float32)
        return Annotation(tuple(events), (), vad)

    def views(self, item: AudioItem) -> list[View]:
        return [MIX] if self.views_each == 1 else [View(k, f"S{k}", (f"S{1 - k}",), 0.5) for k in range(2)]

    def speakers_of(self, item: AudioItem) -> list[str] | None:
        return None

    def sides(self, item: AudioItem, view: View, sample_rate: int) -> tuple[Tensor | None, Tensor]:
        wav = audio.load(item.path, sample_rate)[0]
        return (None, wav) if view is MIX or view.index == 0 else (wav * 0.5, wav)

    def words_of(self, item: AudioItem, view: View) -> list[Word]:
        from voxlab.errors import UserError

        raise UserError(f"{item.id} has no transcript")

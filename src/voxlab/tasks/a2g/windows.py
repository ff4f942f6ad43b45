"""Windows of clips: copied together by the reader of a rank, made into what a network sees on its device."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxlab.data.motion_store import StoredClip
from voxlab.data.motion_windows import gather, window_starts
from voxlab.errors import UserError
from voxlab.models.gesture.motion_codec import MotionCodec
from voxlab.models.gesture.text import WordTable
from voxlab.motion.parts import columns
from voxlab.tasks.a2g.features import Moments32

Batch = dict[str, Any]
TimedWord = tuple[str, float, float]  # text, start and end in seconds
FRAMES = "frames"  # of a batch that is not finished: (B, T, 433) float32


def clip_words(words: Iterable[TimedWord], end: float) -> tuple[TimedWord, ...]:
    """Return the words that are heard within `end` seconds, cut off there, by their middles."""
    heard = [(text, max(0.0, start), min(end, stop)) for text, start, stop in words if stop > 0 and start < end]
    return tuple(sorted(heard, key=lambda word: word[1] + word[2]))


@dataclass(frozen=True)
class ClipData:
    """A clip with all that a window of it is cut from.

    Attributes:
        clip: in the motion store.
        speaker: number in the vocabulary.
        aligned: "features", and "acoustic" where there are some: (T, D) float16 at motion frames.
        codes: part -> (N, Q) int16.
        words: (text, start, end) in seconds of the clip, by their middles; empty without transcript.
    """

    clip: StoredClip
    speaker: int
    aligned: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray]
    words: tuple[TimedWord, ...]


class Windows:
    """All windows of some clips.

    Args:
        clips: of one split.
        codecs: part -> tokenizer, for normalised motion.
        moments: "features", "acoustic" -> what standardises them.
        table: of words.
        length: frames of a window.
        stride: frames between windows.
        fps: frames a second.

    Raises:
        UserError: every clip is shorter than a window.
    """

    def __init__(
        self,
        clips: Sequence[ClipData],
        codecs: Mapping[str, MotionCodec],
        moments: Mapping[str, Moments32],
        table: WordTable,
        *,
        length: int,
        stride: int,
        fps: int,
    ) -> None:
        self.clips, self.codecs, self.moments = list(clips), dict(codecs), dict(moments)
        self.table, self.length, self.fps = table, length, fps
        starts = [window_starts(data.clip.num_frames, length, stride) for data in self.clips]
        self.places = [(number, start) for number, found in enumerate(starts) for start in found]
        self.skipped = [data.clip.id for data, found in zip(self.clips, starts, strict=True) if not len(found)]
        if not self.places:
            longest = max((data.clip.num_frames for data in self.clips), default=0)
            raise UserError(
                f"no clip is as long as a window: the longest of {len(self.clips)} has {longest} frames, fit.window is "
                f"{length}. Lower fit.window."
            )
        # As plain arrays, though mapped: slices of np.memmap cost several times as much.
        self._frames = [np.asarray(data.clip.frames()) for data in self.clips]
        self._words = [_WordTimes(data.words, table) for data in self.clips]
        self._scales: dict[torch.device, _Scales] = {}

    @property
    def num_tokens(self) -> dict[str, int]:
        """Part -> tokens of a window."""
        return {name: self.length // codec.stride for name, codec in self.codecs.items()}

    def gather(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Copy some windows together: what `finish` makes into what `data.BATCH` describes, less what is random."""
        places = [self.places[index] for index in indices]
        numbers, starts = zip(*places, strict=True)
        chosen = [self.clips[number] for number in numbers]
        return {
            "id": [data.clip.id for data in chosen],
            "start_frame": torch.tensor(starts),
            "fps": self.fps,
            "speaker": torch.tensor([data.speaker for data in chosen]),
            "frame_mask": torch.ones(len(chosen), self.length, dtype=torch.bool),
            FRAMES: torch.from_numpy(gather(self._frames, numbers, starts, self.length)),
            "codes": {name: self._codes(name, chosen, starts) for name in self.codecs},
            **{name: self._features(name, chosen, starts) for name in self.moments},
            **self._text(numbers, starts),
        }

    def finish(self, batch: Batch) -> Batch:
        """Return a gathered batch as `data.BATCH` describes it, computed on the device that it is on."""
        batch = dict(batch)
        frames = batch.pop(FRAMES)
        scales = self._scales.setdefault(frames.device, _Scales(self.codecs, self.moments, frames.device))
        batch["motion"] = {name: scales.motion(name, frames) for name in self.codecs}
        batch["codes"] = {name: codes.long() for name, codes in batch["codes"].items()}
        return batch | {name: scales.features(name, batch[name]) for name in self.moments}

    def collate(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Return some windows as `data.BATCH` describes them, without what is drawn at random."""
        return self.finish(self.gather(indices))

    def _codes(self, name: str, chosen: Sequence[ClipData], starts: Sequence[int]) -> Tensor:
        stride, count = self.codecs[name].stride, self.num_tokens[name]
        firsts = [start // stride for start in starts]
        parts = [data.codes[name][first : first + count] for data, first in zip(chosen, firsts, strict=True)]
        return torch.from_numpy(np.stack(parts))

    def _features(self, name: str, chosen: Sequence[ClipData], starts: Sequence[int]) -> Tensor:
        rows = np.empty((len(chosen), self.length, chosen[0].aligned[name].shape[1]), np.float16)
        for row, (data, start) in enumerate(zip(chosen, starts, strict=True)):
            rows[row] = data.aligned[name][start : start + self.length]
        return torch.from_numpy(rows)

    def _text(self, numbers: Sequence[int], starts: Sequence[int]) -> dict[str, Tensor]:
        """Return the words whose middles lie in the windows, on the windows' clocks, padded to the most of them."""
        begins = [start / self.fps for start in starts]
        rows = [
            self._words[number].between(begin, begin + self.length / self.fps)
            for number, begin in zip(numbers, begins, strict=True)
        ]
        counts = np.array([len(ids) for ids, _ in rows])
        mask = np.arange(counts.max()) < counts[:, None]
        ids, times = np.zeros(mask.shape, np.int64), np.zeros(mask.shape, np.float32)
        ids[mask] = np.concatenate([own for own, _ in rows])
        times[mask] = np.concatenate([own for _, own in rows]) - np.repeat(begins, counts)
        filled = {"word_ids": ids, "word_times": times, "word_mask": mask}
        return {name: torch.from_numpy(values) for name, values in filled.items()}


class _WordTimes:
    """The words of a clip, in the order of their middles."""

    def __init__(self, words: Sequence[TimedWord], table: WordTable) -> None:
        self.ids = np.array([table.index(text) for text, _, _ in words], np.int64)
        self.middles = np.array([(start + end) / 2 for _, start, end in words], np.float64)
        self._seconds = self.middles.tolist()

    def between(self, begin: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers and middles, in seconds of the clip, of the words in begin <= middle < end."""
        span = slice(bisect_left(self._seconds, begin), bisect_left(self._seconds, end))
        return self.ids[span], self.middles[span]


class _Scales:
    """What standardises motion and features, on one device."""

    def __init__(
        self, codecs: Mapping[str, MotionCodec], moments: Mapping[str, Moments32], device: torch.device
    ) -> None:
        self._runs = {name: _runs(columns(codec.part)) for name, codec in codecs.items()}
        self._motion = {
            name: (torch.from_numpy(codec.mean).to(device), torch.from_numpy(codec.std).to(device))
            for name, codec in codecs.items()
        }
        self._moments = {name: (value.mean.to(device), value.std.to(device)) for name, value in moments.items()}

    def motion(self, name: str, frames: Tensor) -> Tensor:
        """Return the normalised (B, T, D) numbers of a part from (B, T, 433) frames."""
        mean, std = self._motion[name]
        return torch.cat([frames[..., run] for run in self._runs[name]], dim=-1).sub_(mean).div_(std)

    def features(self, name: str, rows: Tensor) -> Tensor:
        """Return standardised float32 features of float16 ones."""
        mean, std = self._moments[name]
        return rows.float().sub_(mean).div_(std)


def _runs(indices: np.ndarray) -> list[slice]:
    """Return indices as slices: a few pieces are copied several times as fast as hundreds of columns."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(indices, breaks)]

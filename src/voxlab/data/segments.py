"""Segments of recordings for training, as a map-style Dataset that reads no more of a file than the segment.

Which segment stands at an index depends on (seed, epoch, index) alone, not on workers or what was read before.
"""

import copy
import logging
from collections import Counter
from collections.abc import Sequence
from math import gcd
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from voxlab import audio
from voxlab.audio import Decibels, Seconds
from voxlab.data.items import AudioItem
from voxlab.data.names import listed
from voxlab.data.recordings import Header, name_of, read_headers, read_part
from voxlab.errors import UserError
from voxlab.loudness import integrated_loudness

log = logging.getLogger(__name__)

SILENCE = 1e-4  # a recording whose largest sample is below this holds no speech
_MARGIN = 256  # samples on each side, at the lower of two rates, that a resampled segment depends on
_TRIES = 100
_BLOCK = 1 << 20
_UNHEARD, _SOUND, _SILENT = 0, 1, 2
_QUIETEST: Decibels = -60.0  # a pause is not amplified to speech
_SHORTEST: Seconds = 0.4  # EBU R128 can't measure less
_CEILING = 0.99


class SegmentDataset(Dataset[dict[str, Any]]):
    """Segments of one length, mono, at one sample rate; PyTorch's own collate function makes batches of them.

    An item is a dict of
        wav: (1, N) float32, N = `segment_seconds` at `sample_rate`; 0 past the end of a short recording.
        lengths: int, how many of the N samples are the recording's.
        start: int, sample of the file (at the file's rate) at which the segment begins.
        id: str, name of the recording.
        index: int, number of the segment.

    Random segments are spread over the recordings in proportion to their durations: the N-th part of all audio gets
    one segment of N. Their order is random too, so no shuffling is needed. A recording that turns out silent (every
    sample below 1e-4) is replaced by another one, and counted in `num_silent`.

    A resampled segment equals that part of the resampled recording to 1e-6 of full scale, at its edges too: it is read
    with a margin, and starts at a sample that both rates share (16 -> 24 kHz: every second one).

    Args:
        items: recordings, for instance those of one split of a corpus.
        sample_rate: wanted rate in Hz.
        segment_seconds: length of a segment.
        seed: of the random segments.
        random: True: random segments, other ones in each epoch. False: one segment a recording, from its middle, in
            the order of `items`; silent ones too.
        segments_per_epoch: how many random ones; None: as many as would cover all audio once.
        resample: whether recordings of another rate are resampled; False refuses them.
        loudness: (lowest, highest) in LUFS: each segment is scaled to a random loudness between them, or to less where
            its peak would pass 0.99. Pauses (below -60 LUFS) and sound of less than 0.4 s stay as they are.

    Raises:
        UserError: no recordings, files that can't be read, another rate with resample=False, or no recording as long
            as a segment.
    """

    def __init__(
        self,
        items: Sequence[AudioItem],
        *,
        sample_rate: int,
        segment_seconds: Seconds,
        seed: int = 0,
        random: bool = True,
        segments_per_epoch: int | None = None,
        resample: bool = True,
        loudness: tuple[Decibels, Decibels] | None = None,
    ) -> None:
        _check_arguments(segment_seconds, segments_per_epoch, loudness)
        self.items, self.sample_rate, self.seed, self.random = items, sample_rate, seed, random
        self.num_samples = audio.compute_num_samples(segment_seconds, sample_rate)
        self.loudness = loudness
        self.headers = _good_headers(items)
        _check_headers(self.headers, sample_rate, segment_seconds, resample=resample)
        self._ends = np.cumsum([header.duration for header in self.headers])
        covering = max(1, round(self._ends[-1] / segment_seconds))
        self._length = (segments_per_epoch or covering) if random else len(items)
        # Workers that live on see the epoch that the main process sets, and share what they found silent.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._heard = torch.zeros(len(items), dtype=torch.uint8).share_memory_()
        self._drawn: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Draw other random segments; to be called before an epoch, from the main process."""
        self._epoch.fill_(epoch)

    def others(self, count: int, seed: int) -> Self:
        """Return other random segments of the same recordings, `count` an epoch, with an epoch of their own."""
        other = copy.copy(self)
        other.seed, other._length, other._drawn = seed, count, None
        other._epoch = torch.zeros_like(self._epoch)
        return other

    @property
    def num_silent(self) -> int:
        """How many recordings have turned out silent so far, in all workers."""
        return int((self._heard == _SILENT).sum())

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._length:
            raise IndexError(index)
        if not self.random:
            return self._scaled(self._segment(index, 0.5), index)
        rows, places = self._draws()
        row, place = int(rows[index]), float(places[index])
        again = self._generator(index, purpose=1)
        for _ in range(_TRIES):
            found = self._sounding(row, place)
            if found is not None:
                return self._scaled(found, index)
            position, place = again.random(2)
            row = int(_locate(self._ends, position))
        raise UserError(
            f"{_TRIES} recordings in a row are silent (no sample reaches {SILENCE}), the last one "
            f"{self.items[row].id}. {self.num_silent} of {len(self.items)} are known to be."
        )

    def _generator(self, index: int, purpose: int) -> np.random.Generator:
        # NumPy pads a short seed with zeros, so a purpose of 0 would repeat the numbers of `_draws`.
        return np.random.default_rng((self.seed, int(self._epoch), index, purpose))

    def _draws(self) -> tuple[np.ndarray, np.ndarray]:
        epoch = int(self._epoch)
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = (epoch, *draw_segments(self._ends, self._length, (self.seed, epoch)))
        return self._drawn[1:]

    def _sounding(self, row: int, place: float) -> dict[str, Any] | None:
        """Return a segment of a recording, or None where the recording is silent throughout."""
        if self._heard[row] == _SILENT:
            return None
        segment = self._segment(row, place)
        if self._heard[row] == _UNHEARD:
            # What a segment shows must not hang on which one is read first: resampling overshoots, but not ten times.
            loud = bool(segment["wav"].abs().max() > 10 * SILENCE) or self._is_sounding(row)
            self._heard[row] = _SOUND if loud else _SILENT
        return None if self._heard[row] == _SILENT else segment

    def _is_sounding(self, row: int) -> bool:
        header = self.headers[row]
        starts = range(0, header.frames, _BLOCK)
        parts = (read_part(self.items[row], header, start, min(header.frames, start + _BLOCK)) for start in starts)
        return any(bool(part.abs().max() >= SILENCE) for part in parts)

    def _segment(self, row: int, place: float) -> dict[str, Any]:
        """Return the segment that starts at `place`, 0 to 1, of where it can start in a recording."""
        item, header = self.items[row], self.headers[row]
        common = gcd(header.sample_rate, self.sample_rate)
        # Every `step` samples of the file, which are `hop` of the segment, the two rates have a sample in common.
        step, hop = header.sample_rate // common, self.sample_rate // common
        margin = 0 if step == hop else _MARGIN * max(1, -(-step // hop))
        whole = audio.compute_resampled_length(header.frames, header.sample_rate, self.sample_rate)
        start = int(place * (max(0, whole - self.num_samples) // hop + 1))
        length = min(self.num_samples, whole - start * hop)
        lead = min(start, -(-margin // step))
        needed = -(-self.num_samples * step // hop) + margin
        part = read_part(item, header, (start - lead) * step, min(header.frames, start * step + needed))
        wav = audio.resample(part, header.sample_rate, self.sample_rate)[:, lead * hop : lead * hop + length]
        if length < self.num_samples:
            wav = torch.nn.functional.pad(wav, (0, self.num_samples - length))
        return {"wav": wav, "lengths": length, "start": start * step, "id": item.id}

    def _scaled(self, segment: dict[str, Any], index: int) -> dict[str, Any]:
        if self.loudness is not None:
            wanted = self._generator(index, purpose=2).uniform(*self.loudness)
            segment["wav"] *= _gain(segment["wav"][:, : segment["lengths"]], self.sample_rate, wanted)
        return {**segment, "index": index}


def draw_segments(ends: np.ndarray, count: int, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw segments evenly over all audio, in random order.

    Args:
        ends: (R,) where each recording ends when all are laid end to end; any unit.
        count: how many segments.
        seed: for one seed, the same segments on every machine.

    Returns:
        (count,) number of the recording: each has its share of `count`, give or take less than 2; and (count,) place
        in it, 0 <= place < 1.
    """
    generator = np.random.default_rng(tuple(seed))
    positions = (generator.permutation(count) + generator.random(count)) / count
    return _locate(ends, positions), generator.random(count)


def _locate(ends: np.ndarray, position: np.ndarray | float) -> np.ndarray:
    """Return the recording at a position of 0 to 1 in all audio."""
    return np.minimum(np.searchsorted(ends, position * ends[-1], side="right"), len(ends) - 1)


def _gain(wav: Tensor, sample_rate: int, wanted: Decibels) -> float:
    if wav.shape[-1] < _SHORTEST * sample_rate:
        return 1.0
    present = integrated_loudness(wav, sample_rate)
    if present < _QUIETEST:
        return 1.0
    return min(10 ** ((wanted - present) / 20), _CEILING / float(wav.abs().max()))


# ---- what can't be trained on --------------------------------------------------------------------------------------


def _check_arguments(
    segment_seconds: Seconds, segments_per_epoch: int | None, loudness: tuple[Decibels, Decibels] | None
) -> None:
    if not 0 < segment_seconds < float("inf"):
        raise UserError(f"segment_seconds={segment_seconds}: give a length above 0.")
    if segments_per_epoch is not None and segments_per_epoch < 1:
        raise UserError(f"segments_per_epoch={segments_per_epoch}: give 1 or more, or null to cover all audio once.")
    if loudness is not None and not -60 <= loudness[0] <= loudness[1] <= 0:
        raise UserError(f"loudness={list(loudness)}: give the lowest and highest in LUFS, for example '[-30, -16]'.")


def _good_headers(items: Sequence[AudioItem]) -> list[Header]:
    if not items:
        raise UserError("no recordings to take segments from: the split is empty.")
    found = read_headers(items)
    bad = [f"{name_of(item)}: {header}" for item, header in zip(items, found, strict=True) if isinstance(header, str)]
    if bad:
        separator = "\n  "
        raise UserError(f"{len(bad)} of {len(items)} files can't be read:\n  {listed(bad, separator)}")
    return [header for header in found if isinstance(header, Header)]


def _check_headers(headers: Sequence[Header], sample_rate: int, segment_seconds: Seconds, *, resample: bool) -> None:
    others = Counter(header.sample_rate for header in headers if header.sample_rate != sample_rate)
    rates = ", ".join(f"{count} of {rate} Hz" for rate, count in sorted(others.items()))
    if others and not resample:
        raise UserError(f"{rates}: of {len(headers)} files, where {sample_rate} Hz is wanted. Allow fit.resample=true.")
    if others:
        log.info("resampled to %d Hz: %s", sample_rate, rates)
    several = sum(header.channels > 1 for header in headers)
    if several:
        log.info("averaged to mono: %d of %d files", several, len(headers))
    durations = [header.duration for header in headers]
    if max(durations) < segment_seconds:
        counts, edges = np.histogram(durations, bins=5)
        bins = zip(edges[:-1], edges[1:], counts, strict=True)
        lengths = ", ".join(f"{low:.2f} to {high:.2f} s: {count}" for low, high, count in bins)
        raise UserError(
            f"segments of {segment_seconds} s are longer than every recording ({lengths}). Take shorter segments."
        )

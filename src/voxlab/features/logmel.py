"""Log-mel energies at 12.5 Hz: mean and maximum over the eight 10 ms hops of a frame. No weights.

python main.py task=extract data=podcastfillers features=logmel
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.features.align import check_align, delay, split_frames
from voxlab.features.base import VERSION, Chunk, FeatureInfo, Recording
from voxlab.mel import LogMel, Mel

SAMPLE_RATE, HOPS, HOP_LENGTH = 16000, 8, 160
FRAME = HOPS * HOP_LENGTH
CHUNK_FRAMES = 750


class LogMelFeatures:
    """Causal log-mel of the `other` side: frame t ends with its own 80 ms, nothing later is seen.

    Args:
        num_bins: mel bands (Slaney scale, 32 ms window); a frame holds their means, then their maxima.
        align: decision: row t holds frame t - 1, row 0 is zeros; raw: row t holds frame t.

    Raises:
        UserError: an argument is out of range.
    """

    licence: ClassVar[str] = "Log-mel energies: no weights."

    def __init__(self, *, num_bins: int = 64, align: str = "decision") -> None:
        if not 8 <= num_bins <= 64:
            raise UserError(f"features logmel: num_bins={num_bins}; allowed: 8 to 64 (more bands would be empty)")
        self.num_bins, self.align = num_bins, check_align(align, "logmel")
        mel = Mel(
            sample_rate=SAMPLE_RATE, n_fft=512, hop_length=HOP_LENGTH, num_bins=num_bins, scale="slaney", center=False
        )
        self.mel, self.device = LogMel(mel), torch.device("cpu")

    @property
    def info(self) -> FeatureInfo:
        """Describe the frames."""
        return FeatureInfo("logmel", 2 * self.num_bins, SAMPLE_RATE / FRAME, SAMPLE_RATE, "none")

    def settings(self) -> dict[str, Any]:
        """Return what decides the frames."""
        return {"name": "logmel", "num_bins": self.num_bins, "align": self.align, "version": VERSION}

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that decides the bytes."""
        return asdict(self.info) | self.settings()

    def to(self, device: torch.device | str) -> Self:
        """Compute on `device`."""
        self.device = torch.device(device)
        self.mel.to(self.device)
        return self

    def context_frames(self, num_frames: int) -> np.ndarray:
        """Return how many frames of audio come before the end of each row's own."""
        return np.arange(num_frames, dtype=np.int32) + (self.align == "raw")

    def stream(self, recordings: Iterable[Recording]) -> Iterator[Chunk]:
        """Extract one recording after the other, a minute at a time."""
        for recording in recordings:
            wav = recording.load()[1]
            pieces = nn.functional.pad(wav, (0, recording.num_frames * FRAME - wav.shape[-1])).split(
                CHUNK_FRAMES * FRAME, dim=-1
            )
            start = 0
            for values in self._rows(pieces):
                last = start + len(values) == recording.num_frames
                yield Chunk(recording.key, "features", start, values, last)
                start += len(values)

    def live(self, wavs: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Yield (1, dim) frames as their audio comes."""
        if self.align == "raw":
            yield from self._rows(split_frames(wavs, FRAME, flush=True))
            return
        yield np.zeros((1, self.info.dim), np.float16)
        for frame in self._frames(split_frames(wavs, FRAME, flush=False)):
            yield frame.half().cpu().numpy()

    def _rows(self, pieces: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Turn consecutive (1, k FRAME) samples into (k, dim) float16 rows, aligned."""
        previous = torch.zeros(1, self.info.dim, device=self.device)
        for frames in self._frames(pieces):
            if self.align == "decision":
                frames, previous = delay(frames, previous)
            yield frames.half().cpu().numpy()

    @torch.no_grad()
    def _compute(self, wav: Tensor) -> Tensor:
        """Compute (k, dim) from (1, margin + k FRAME) samples."""
        skip = -(-self._left // HOP_LENGTH)
        hops = self.mel(wav)[0, :, skip : skip + (wav.shape[-1] - self._margin) // HOP_LENGTH]
        hops = hops.unflatten(1, (-1, HOPS))
        return torch.cat([hops.mean(-1), hops.amax(-1)]).T

    def _frames(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        past = torch.zeros(1, self._margin, device=self.device)
        for piece in pieces:
            wav = torch.cat([past, piece.to(self.device)], dim=-1)
            past = wav[:, -self._margin :]
            yield self._compute(wav)

    @property
    def _left(self) -> int:
        """Samples by which LogMel continues a signal at its start; what it makes of them is dropped."""
        return (self.mel.mel.n_fft - HOP_LENGTH) // 2

    @property
    def _margin(self) -> int:
        """Samples before a piece that its first window and the dropped hops reach back to."""
        right = self.mel.mel.n_fft - HOP_LENGTH - self._left
        return right + -(-self._left // HOP_LENGTH) * HOP_LENGTH

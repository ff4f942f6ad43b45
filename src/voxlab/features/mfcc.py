"""Mel-frequency cepstral coefficients at 50 Hz, on the clock of WavLM. No weights.

python main.py task=extract data=beat2 features=mfcc
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from voxlab.audio import compute_num_frames
from voxlab.codecs.runtime import exact_inference
from voxlab.errors import UserError
from voxlab.features.base import VERSION, Chunk, FeatureInfo, Recording

SAMPLE_RATE, HOP_LENGTH, N_FFT = 16000, 320, 2048
PIECE = 3000 * HOP_LENGTH  # samples that are transformed in one call: a minute
REACH = N_FFT // 2  # samples that a row looks to either side


class Mfcc:
    """MFCC of the `other` side: row k is centred on sample 320 k, beyond both ends is silence.

    Energies are in ln(x + 1e-6), as torchaudio has it with `log_mels`: its decibels are cut 80 below the loudest of the
    whole recording, so that rows would depend on what comes an hour later.

    Args:
        num_coefficients: kept of the cosine transform, numbers per row.
        num_bins: mel bands (HTK scale, up to 8 kHz; 128 ms window).

    Raises:
        UserError: an argument is out of range.
    """

    licence: ClassVar[str] = "Mel-frequency cepstral coefficients: no weights."

    def __init__(self, *, num_coefficients: int = 128, num_bins: int = 256) -> None:
        if not 1 <= num_coefficients <= num_bins <= 256:
            raise UserError(
                f"features mfcc: num_coefficients={num_coefficients}, num_bins={num_bins}; needed is "
                "1 <= num_coefficients <= num_bins <= 256 (more bands would be empty)"
            )
        self.num_coefficients, self.num_bins = num_coefficients, num_bins
        self.device = torch.device("cpu")

    @property
    def info(self) -> FeatureInfo:
        """Describe the rows."""
        return FeatureInfo("mfcc", self.num_coefficients, SAMPLE_RATE / HOP_LENGTH, SAMPLE_RATE, "none")

    def settings(self) -> dict[str, Any]:
        """Return what decides the rows."""
        sizes = {"num_coefficients": self.num_coefficients, "num_bins": self.num_bins, "n_fft": N_FFT, "log": "ln"}
        return {"name": "mfcc", **sizes, "centre": 0, "version": VERSION}

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that decides the bytes."""
        return asdict(self.info) | self.settings()

    def to(self, device: torch.device | str) -> Self:
        """Compute on `device`."""
        self.device = torch.device(device)
        return self

    def context_frames(self, num_frames: int) -> np.ndarray:
        """Return how many hops of audio the window of each row touches."""
        rows, reach = np.arange(num_frames), compute_num_frames(REACH, HOP_LENGTH)
        return (np.minimum(rows + reach, num_frames) - np.maximum(rows - reach, 0)).astype(np.int32)

    def stream(self, recordings: Iterable[Recording]) -> Iterator[Chunk]:
        """Extract one recording after the other, a minute at a time; ceil(samples / 320) rows."""
        for recording in recordings:
            start = 0
            for values in self._rows(recording.load()[1].split(PIECE, dim=-1)):
                last = start + len(values) == recording.num_frames
                yield Chunk(recording.key, "features", start, values, last)
                start += len(values)

    def live(self, wavs: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Yield (1, dim) rows, each 64 ms after its middle, the last ones when the signal ends."""
        for values in self._rows(wavs):
            yield from np.split(values, len(values))

    def _rows(self, pieces: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Turn consecutive (1, n) samples into (k, dim) rows as soon as their windows are complete."""
        heard = torch.zeros(1, REACH)  # begins where the window of the next row does
        for piece in pieces:
            heard = torch.cat([heard, piece.to(heard)], dim=-1)
            count = (heard.shape[-1] - N_FFT) // HOP_LENGTH + 1
            if count > 0:
                yield self._compute(heard, count)
                heard = heard[:, count * HOP_LENGTH :]
        rest = compute_num_frames(heard.shape[-1] - REACH, HOP_LENGTH)
        if rest > 0:
            yield self._compute(nn.functional.pad(heard, (0, N_FFT)), rest)

    def _compute(self, wav: Tensor, count: int) -> np.ndarray:
        needed = wav[:, : (count - 1) * HOP_LENGTH + N_FFT].to(self.device)
        with exact_inference(self.device, torch.float32):
            return self._transform.to(self.device)(needed)[0].T.half().cpu().numpy()

    @cached_property
    def _transform(self) -> nn.Module:
        from torchaudio.transforms import MFCC

        spectrogram = {"n_fft": N_FFT, "hop_length": HOP_LENGTH, "n_mels": self.num_bins, "center": False}
        return MFCC(SAMPLE_RATE, self.num_coefficients, log_mels=True, melkwargs=spectrogram)

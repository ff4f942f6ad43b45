"""What every feature extractor is: recordings in, chunks of frames out, offline in bulk or live frame by frame."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import torch
from torch import Tensor

ALIGNMENTS = ("decision", "raw")
# Part of every fingerprint: raise it when a change of the code below `features` changes stored bytes.
VERSION = 1


@dataclass(frozen=True)
class FeatureInfo:
    """What a feature's frames are.

    Attributes:
        name: the feature's word, for example "moshi".
        dim: numbers per frame.
        frame_rate: frames per second.
        sample_rate: of the audio it reads, in Hz.
        weights_id: "sha256:<hex>", "random:<seed>", or "none" where there are no weights.
        dtype: of the stored numbers.
    """

    name: str
    dim: int
    frame_rate: float
    sample_rate: int
    weights_id: str
    dtype: Literal["float16", "int16"] = "float16"

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return round(self.sample_rate / self.frame_rate)


class TimedWord(Protocol):
    """A spoken word; times in seconds from the start of the recording."""

    @property
    def text(self) -> str:
        """The word as it is written."""
        ...

    @property
    def start(self) -> float:
        """Its begin."""
        ...

    @property
    def end(self) -> float:
        """Its end."""
        ...


@dataclass
class Recording:
    """One view of one recording, loaded when its turn comes.

    Attributes:
        key: unique name, repeated in its chunks.
        num_frames: ceil(samples / hop).
        load: returns (agent, other), each (1, T) float32 at `info.sample_rate`, equally long; agent None is digital
            silence. `other` is whose laughter is predicted, or the mix of everybody.
        words: returns what the agent says, for features that read text; None: no transcript.
    """

    key: str
    num_frames: int
    load: Callable[[], tuple[Tensor | None, Tensor]]
    words: Callable[[], Sequence[TimedWord]] | None = None


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames of a recording.

    Attributes:
        key: of the recording.
        name: "features", or "codes": the tokens behind them, not shifted by `align`.
        start: index of the first frame.
        values: (k, dim) in the dtype of the info (a float16 overflow is infinite), or (k, rows) int16 for codes.
        last: no more chunks of this key and name follow.
    """

    key: str
    name: Literal["features", "codes"]
    start: int
    values: np.ndarray
    last: bool


class Features(Protocol):
    """A feature extractor; building one reads nothing, `info` reads and hashes the weights, `to` loads them.

    Attributes:
        licence: of the weights, a line or two, for those who pass the frames on.
    """

    licence: ClassVar[str]

    @property
    def info(self) -> FeatureInfo:
        """Describe the frames.

        Raises:
            UserError: the weights aren't there or are of another kind.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Return what decides the frames besides the weights; touches no file."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that decides the bytes: `settings` and `info`."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Load the weights, if any, onto `device`."""
        ...

    def stream(self, recordings: Iterable[Recording]) -> Iterator[Chunk]:
        """Extract recordings; chunks of one key and name come in order, those of several recordings interleave.

        A recording is loaded when a place for it is free; give the longest first to keep all places busy.
        """
        ...

    def context_frames(self, num_frames: int) -> np.ndarray:
        """Return how many frames of audio each row knows of, (num_frames,) int32."""
        ...

    def live(self, wavs: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Extract a running signal, (1, n) pieces of any length: yield (1, dim) frames as soon as they are known.

        With align=decision the first frame comes at once, and frame t as soon as t frames of audio are complete, so
        there are 1 + floor(samples / hop): one more than `stream` gives where the signal ends on a whole frame.
        With align=raw the end is padded with zeros to a whole frame.
        """
        ...

"""How a recording is cut where a model starts cold every few minutes, and how much past each frame has then."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from voxlab.errors import UserError

CONTEXTS = ("stream", "chunk", "overlap")


class Piece(NamedTuple):
    """Frames that are run from a cold start: `begin` to `stop`, of which those before `start` are thrown away."""

    begin: int
    start: int
    stop: int


@dataclass(frozen=True)
class Pieces:
    """The cutting rule, in frames.

    Attributes:
        context: stream (no cut) | chunk (cold starts) | overlap (cold starts, with frames before each piece).
        chunk: frames of a piece.
        overlap: frames before a piece.
    """

    context: str
    chunk: int
    overlap: int

    @classmethod
    def checked(cls, context: str, chunk_s: float, overlap_s: float, frame_rate: float) -> Self:
        """Return the rule of a configuration in seconds.

        Raises:
            UserError: the word is unknown, or a time is not positive or no whole number of frames.
        """
        if context not in CONTEXTS:
            raise UserError(f"features.context={context!r} is unknown; allowed: {', '.join(CONTEXTS)}")
        for key, seconds in (("chunk_s", chunk_s), ("overlap_s", overlap_s)):
            frames = seconds * frame_rate
            if context != "stream" and not (frames > 0 and abs(frames - round(frames)) < 1e-6):
                raise UserError(f"features.{key}={seconds}: must be a positive multiple of {1 / frame_rate} s")
        overlap = round(overlap_s * frame_rate) if context == "overlap" else 0
        return cls(context, round(chunk_s * frame_rate) if context != "stream" else 0, overlap)

    def record(self) -> dict[str, Any]:
        """Return what decides the frames."""
        sizes = {} if self.context == "stream" else {"chunk_frames": self.chunk, "overlap_frames": self.overlap}
        return {"context": self.context, **sizes}

    def of(self, num_frames: int) -> list[Piece]:
        """Cut a recording."""
        if self.context == "stream":
            return [Piece(0, 0, num_frames)]
        starts = range(0, num_frames, self.chunk)
        return [Piece(max(0, s - self.overlap), s, min(s + self.chunk, num_frames)) for s in starts]

    def seen(self, num_frames: int, window: int) -> np.ndarray:
        """Return min(frames since the cold start, window) for each frame, (num_frames,) int32."""
        parts = [np.arange(p.start - p.begin, p.stop - p.begin) for p in self.of(num_frames)]
        return np.minimum(np.concatenate(parts) if parts else np.zeros(0), window).astype(np.int32)

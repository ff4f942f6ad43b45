"""What a gesture model hears and reads, and which of it is withheld."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """The conditions of B items of T frames.

    Attributes:
        features: (B, T, Df) float32, normalised, at the middle of each frame, (i + 0.5) / fps.
        acoustic: (B, T, Da) float32, normalised; None: there are none.
        frame_mask: (B, T) bool, True = valid; the valid frames come first.
        speaker: (B,) int64; -1: unknown.
        word_ids: (B, W) int64, of a `text.WordTable`; W may be 0.
        word_times: (B, W) middle of each word in seconds since the first frame.
        word_mask: (B, W) bool, True = valid.
    """

    features: Tensor
    acoustic: Tensor | None
    frame_mask: Tensor
    speaker: Tensor
    word_ids: Tensor
    word_times: Tensor
    word_mask: Tensor

    @property
    def lengths(self) -> Tensor:
        """Frames of each item, (B,) int64."""
        return self.frame_mask.sum(dim=1)

    def to(self, device: torch.device | str) -> "Conditions":
        """Return the same on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def select(self, rows: Tensor) -> "Conditions":
        """Return some of the items, by their numbers or by a mask."""
        return self._each(lambda tensor: tensor[rows])

    def window(self, start: int, length: int, fps: float) -> "Conditions":
        """Return `length` frames from frame `start` on, and the words whose middle lies in them.

        Frames past the end of an item repeat its last one and count as valid.
        """
        last = (self.lengths - 1).clamp_min(0)[:, None]
        frames = torch.arange(start, start + length, device=last.device).minimum(last)
        times = self.word_times - start / fps
        return dataclasses.replace(
            self,
            features=_take(self.features, frames),
            acoustic=None if self.acoustic is None else _take(self.acoustic, frames),
            frame_mask=torch.ones_like(frames, dtype=torch.bool),
            word_times=times,
            word_mask=self.word_mask & (times >= 0) & (times < length / fps),
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: change(x) for name, x in values.items() if x is not None})


@dataclass(frozen=True)
class Drop:
    """Conditions to withhold from each item, (B,) bool each, True = withheld."""

    audio: Tensor
    text: Tensor
    speaker: Tensor

    @classmethod
    def nothing(cls, batch: int, device: torch.device | str = "cpu") -> "Drop":
        """Withhold nothing from `batch` items."""
        none = torch.zeros(batch, dtype=torch.bool, device=device)
        return cls(none, none, none)

    @classmethod
    def speech(cls, batch: int, device: torch.device | str = "cpu") -> "Drop":
        """Withhold audio and text, which is what guidance compares with."""
        none = torch.zeros(batch, dtype=torch.bool, device=device)
        return cls(~none, ~none, none)

    def to(self, device: torch.device | str) -> "Drop":
        """Return the same on another device."""
        return Drop(self.audio.to(device), self.text.to(device), self.speaker.to(device))


def _take(x: Tensor, frames: Tensor) -> Tensor:
    """Return the frames (B, L), by number, of (B, T, D)."""
    return x.gather(1, frames[..., None].expand(-1, -1, x.shape[2]))

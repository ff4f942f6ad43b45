"""Batches of windows for training a motion tokenizer: those of step n are a function of (seed, n), on any ranks.

A batch is a dict: motion (B, T, D) float32, raw numbers of one part of the body, and id: B times "clip@first frame".
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from voxlab.data.motion_store import MotionStore, StoredClip
from voxlab.data.motion_windows import gather, window_starts
from voxlab.errors import UserError
from voxlab.motion.parts import Part, columns
from voxlab.tasks.train_tokenizer.settings import Fit

Batch = dict[str, Any]
_POOL_SEED = 2  # added to the seed
_POOL_BATCH = 64  # windows


class Windows:
    """All windows of some clips.

    Args:
        clips: of one split; those shorter than a window are left out and counted in `num_short`.
        part: of the body.
        length: frames of a window.
        stride: frames between the starts of windows.
    """

    def __init__(self, clips: Sequence[StoredClip], part: Part, length: int, stride: int) -> None:
        self.clips = [clip for clip in clips if clip.num_frames >= length]
        self.num_short = len(clips) - len(self.clips)
        self.length, self.columns = length, columns(part)
        self.frames = [clip.frames() for clip in self.clips]
        starts = [np.asarray(window_starts(clip.num_frames, length, stride)) for clip in self.clips]
        self.starts = np.concatenate([np.zeros(0, np.int64), *starts])
        self.owners = np.repeat(np.arange(len(self.clips)), [len(each) for each in starts])

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, windows: np.ndarray) -> Batch:
        """Return the batch of the windows with these numbers."""
        owners, starts = self.owners[windows], self.starts[windows]
        motion = gather(self.frames, owners, starts, self.length, self.columns)
        names = [f"{self.clips[owner].id}@{start}" for owner, start in zip(owners, starts, strict=True)]
        return {"motion": torch.from_numpy(motion), "id": names}


class MotionData(LightningDataModule):
    """Training windows without end, each once before any comes again, and windows side by side for validation.

    Args:
        store: of a corpus.
        part: of the body.
        fit: settings.
        seed: of the order.
        max_steps: where training ends.

    Raises:
        UserError: a split has no clip that is long enough.
    """

    def __init__(self, store: MotionStore, part: Part, *, fit: Fit, seed: int, max_steps: int) -> None:
        super().__init__()
        self.fit, self.seed, self.max_steps = fit, seed, max_steps
        self.train_set = self._windows(store, part, "train_split", fit.train_split, fit.stride)
        self.val_set = None
        if fit.val_split is not None:
            self.val_set = self._windows(store, part, "val_split", fit.val_split, fit.window)

    def _windows(self, store: MotionStore, part: Part, key: str, split: str, stride: int) -> Windows:
        clips = [clip for clip in store.clips if clip.split == split]
        windows = Windows(clips, part, self.fit.window, stride)
        if not len(windows):
            counts = Counter(clip.split for clip in store.clips)
            found = ", ".join(f"{name} ({count} clips)" for name, count in sorted(counts.items()))
            remedy = ", or train without validation (fit.val_split=null)" if key == "val_split" else ""
            raise UserError(
                f"fit.{key}={split}: no clip in this split has {self.fit.window} frames (fit.window). Present: "
                f"{found or 'none'}. Name another split, lower fit.window{remedy}."
            )
        return windows

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this rank's part of every batch from the module's step on."""
        rank, world = self._place()
        module: Any = self.trainer.lightning_module if self.trainer else None
        steps = range(0 if module is None else module.step, self.max_steps)
        batches = StepBatches(self.train_set, self.fit.batch_size, self.seed, rank, world)
        return DataLoader(batches, batch_size=None, sampler=steps)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return this rank's share of the validation windows; all of them where there are fewer than ranks."""
        if self.val_set is None:
            return []
        rank, world = self._place()
        every = np.arange(len(self.val_set))
        own = every[rank::world] if len(every) >= world else every
        size = max(1, self.fit.batch_size // world)
        pieces = [own[first : first + size] for first in range(0, len(own), size)]
        return DataLoader(_Listed(self.val_set, pieces), batch_size=None)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def pool(self, num_windows: int) -> Iterator[Tensor]:
        """Return (B, T, D) raw motion of random training windows, for the start of the quantizer."""
        chosen = np.random.default_rng(self.seed + _POOL_SEED).integers(len(self.train_set), size=num_windows)
        for first in range(0, num_windows, _POOL_BATCH):
            yield self.train_set.batch(chosen[first : first + _POOL_BATCH])["motion"]


class StepBatches(Dataset[Batch]):
    """This rank's part of the batch of each step: shuffled windows, one pass over all of them after the other.

    Args:
        windows: to train on.
        batch_size: windows of a batch over all ranks, a multiple of `world`.
        seed: of the order.
        rank: whose part.
        world: number of ranks.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int, rank: int, world: int) -> None:
        self.windows, self.batch_size, self.seed = windows, batch_size, seed
        self.own = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def __getitem__(self, step: int) -> Batch:
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[self.own]
        passes, offsets = np.divmod(places, len(self.windows))
        chosen = np.array([self._of_pass(number)[offset] for number, offset in zip(passes, offsets, strict=True)])
        return self.windows.batch(chosen)

    def _of_pass(self, number: int) -> np.ndarray:
        """Return the order of the windows in a pass."""
        if self._order[0] != number:
            self._order = (number, np.random.default_rng((self.seed, number)).permutation(len(self.windows)))
        return self._order[1]


class _Listed(Dataset[Batch]):
    """Batches of given windows."""

    def __init__(self, windows: Windows, pieces: Sequence[np.ndarray]) -> None:
        self.windows, self.pieces = windows, pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> Batch:
        return self.windows.batch(self.pieces[index])

"""Training and validation windows of `task=a2g`: what batch n holds is the same for any number of ranks.

A batch is the dict that `BATCH` describes; `check_batch` looks at the first one.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from voxlab.errors import UserError
from voxlab.models.gesture.masking import Masking, draw_drop, draw_visible, masked_share
from voxlab.tasks.a2g.windows import Batch, Windows

_DRAWN = 16  # steps whose hidden tokens are drawn at once: most of the cost is that of a call
BATCH = {  # B windows, T frames at `fps`, N tokens and D numbers of a part, Q codebooks, W words
    "id": "list of B clip ids",
    "start_frame": "(B,) int64, first frame of the window in its clip",
    "fps": "int, frames a second",
    "speaker": "(B,) int64, number in the vocabulary",
    "features": "(B, T, Df) float32, standardised, at the middle of each frame",
    "acoustic": "(B, T, Da) float32, likewise; absent without acoustic features",
    "frame_mask": "(B, T) bool, True = valid",
    "motion": "part -> (B, T, D) float32, normalised",
    "codes": "part -> (B, N, Q) int64",
    "visible": "part -> (B, N) bool, True = not to be predicted",
    "mask_ratio": "(B,) float32, share of the tokens that are not visible",
    "word_ids": "(B, W) int64",
    "word_times": "(B, W) float32, seconds from the start of the window to the middle of the word",
    "word_mask": "(B, W) bool, True = valid",
    "drop": "audio, text, speaker -> (B,) bool, True = the condition is left out",
}


class TrainData:
    """The batches of a training split, from any step on.

    Args:
        windows: of the split.
        batch_size: windows, over all ranks.
        masking: what is hidden.
        seed: of the order and of what is hidden.
        world: number of ranks.

    Raises:
        UserError: fewer windows than ranks.
    """

    def __init__(self, windows: Windows, batch_size: int, masking: Masking, seed: int, world: int) -> None:
        self.windows, self.masking, self.seed = windows, masking, seed
        self.batch_size = min(batch_size, len(windows.places))
        if self.batch_size < world:
            raise UserError(f"{self.batch_size} windows a step don't go round {world} ranks: raise fit.batch_size.")
        self.per_epoch = len(windows.places) // self.batch_size
        self._order: tuple[int, np.ndarray] = -1, np.zeros(0)  # epoch, windows
        self._hidden: tuple[int, Batch] = -1, {}  # block of steps, what is hidden in them

    def part(self, step: int, rank: int, world: int) -> Iterator[Batch]:
        """Return one rank's part of every batch from `step` on, without end."""
        for number in itertools.count(step):
            yield self.batch(number, rank, world)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return one rank's part of the batch of a step, for `Windows.finish` to complete on the device."""
        epoch, position = divmod(step, self.per_epoch)
        block, place = divmod(step, _DRAWN)
        if self._order[0] != epoch:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.windows.places))
            self._order = epoch, order
        if self._hidden[0] != block:
            count = _DRAWN * self.batch_size
            self._hidden = block, hidden(self.windows, count, (self.seed, 1, block), self.masking)
        chosen = self._order[1][position * self.batch_size : (position + 1) * self.batch_size]
        rows = slice(place * self.batch_size + rank, (place + 1) * self.batch_size, world)
        return self.windows.gather(chosen[rank::world]) | _rows(self._hidden[1], rows)


def _rows(values: Any, rows: slice) -> Any:
    """Return some rows of nested tensors."""
    if isinstance(values, dict):
        return {name: _rows(value, rows) for name, value in values.items()}
    return values[rows].contiguous()


def hidden(windows: Windows, count: int, seeds: Sequence[int], masking: Masking) -> Batch:
    """Draw what is hidden in `count` windows."""
    generator = torch.Generator().manual_seed(int(np.random.default_rng(list(seeds)).integers(2**62)))
    everywhere = {name: torch.ones(count, tokens, dtype=torch.bool) for name, tokens in windows.num_tokens.items()}
    strides = {name: codec.stride for name, codec in windows.codecs.items()}
    visible = draw_visible(masking, everywhere, strides, generator)
    drop = draw_drop(masking, count, generator)
    return {
        "visible": visible,
        "mask_ratio": masked_share(visible, everywhere),
        "drop": {"audio": drop.audio, "text": drop.text, "speaker": drop.speaker},
    }


def check_batch(batch: Batch) -> None:
    """Check the first batch: names, shapes, finite values.

    Raises:
        RuntimeError: it is not what `BATCH` says.
    """
    unknown = sorted(set(batch) ^ (set(BATCH) if "acoustic" in batch else set(BATCH) - {"acoustic"}))
    size, length = batch["frame_mask"].shape
    wrong = [f"{name} is missing or unknown" for name in unknown]
    rows = {"features": batch["features"], **{f"motion.{name}": value for name, value in batch["motion"].items()}}
    for name, value in rows.items():
        if value.shape[:2] != (size, length) or not bool(value.isfinite().all()):
            wrong.append(f"{name} is {tuple(value.shape)}, or holds numbers that are not finite")
    for name, codes in batch["codes"].items():
        if codes.shape[:2] != batch["visible"][name].shape or length % codes.shape[1]:
            wrong.append(f"codes.{name} is {tuple(codes.shape)} for {length} frames")
    if wrong:
        raise RuntimeError(f"the first batch is wrong: {'; '.join(wrong)}")

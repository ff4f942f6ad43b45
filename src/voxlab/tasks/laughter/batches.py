"""Training batches of step n, the same for 1, 2, 4 and 8 ranks, from any step on.

A batch is a dict: features (B, L, D) float32, y (B, L), weight (B, L), mask (B, L); see `data.frame_blocks`.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from voxlab.data.frame_blocks import LabelledView, epoch_batches, num_batches
from voxlab.errors import UserError
from voxlab.tasks.laughter.settings import Fit
from voxlab.tasks.read_ahead import ahead

Batch = dict[str, Any]
_READERS = 8  # streams that a batch is put together of, so that 1, 2, 4 and 8 ranks train on the same batches
_BLOCKS_PER_READER = 4  # at least; fewer streams where the data are few


def num_readers(num_blocks: int, world: int) -> int:
    """Return how many streams make up a batch: a multiple of `world`, the same number for 1, 2, 4 and 8 ranks.

    Fewer than 8 where each would have fewer than 4 blocks.
    """
    wanted = _READERS
    while wanted > 1 and num_blocks < wanted * _BLOCKS_PER_READER:
        wanted //= 2
    return world * max(1, wanted // world)


class TrainData:
    """The batches of a training split, from any step on.

    Args:
        views: of the training split.
        fit: settings.
        context: frames that a model looks back; 0: batches of single frames.
        seed: of the order.
        world: number of ranks.

    Raises:
        UserError: too few frames for so many ranks.
    """

    def __init__(self, views: Sequence[LabelledView], fit: Fit, context: int, seed: int, world: int) -> None:
        self.views, self.fit, self.context, self.seed = list(views), fit, context, seed
        blocks = num_batches(self.views, batch_size=1, block=fit.block, context=1)  # one sequence a block
        self.readers = num_readers(blocks, world)
        size = fit.frames_or_sequences(context)
        if size < self.readers:
            raise UserError(f"fit.batch_size={size}: with {world} ranks, give {self.readers} or more.")
        self.shape: dict[str, Any] = {"batch_size": size // self.readers, "block": fit.block, "context": context}
        self.per_epoch = num_batches(self.views, world=self.readers, **self.shape)

    def part(self, step: int, rank: int, world: int) -> Iterator[Batch]:
        """Return one rank's part of every batch from `step` on, without end, read ahead by a thread."""
        return ahead(self.batches(step, range(rank, self.readers, world)), self.fit.read_ahead)

    def batches(self, step: int, readers: Sequence[int]) -> Iterator[Batch]:
        """Yield what some of the readers give for each step from `step` on, without end."""
        settings = {**self.shape, "buffer": max(1, self.fit.buffer // self.readers), "seed": self.seed}
        first, start = divmod(step, self.per_epoch)
        for epoch in itertools.count(first):
            given = {"epoch": epoch, "readers": readers, "world": self.readers, "start_step": start}
            yield from epoch_batches(self.views, **given, **settings)
            start = 0

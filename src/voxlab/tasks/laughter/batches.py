"""Training batches of step n, the same for 1, 2, 4 and 8 ranks, from any step on.

A batch is a dict: features (B, L, D) float32, y (B, L), weight (B, L), mask (B, L); see `data.frame_blocks`.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from voxlab.data.frame_blocks import LabelledView, epoch_batches, num_batches
from voxlab.errors import UserError
from voxlab.tasks.laughter.settings import Fit

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


class TrainData(LightningDataModule):
    """This rank's part of the batches, from the module's step to the last.

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
        super().__init__()
        self.views, self.fit, self.context, self.seed = list(views), fit, context, seed
        blocks = num_batches(self.views, batch_size=1, block=fit.block, context=1)  # one sequence a block
        self.readers = num_readers(blocks, world)
        size = fit.frames_or_sequences(context)
        if size < self.readers:
            raise UserError(f"fit.batch_size={size}: with {world} ranks, give {self.readers} or more.")
        self.shape: dict[str, Any] = {"batch_size": size // self.readers, "block": fit.block, "context": context}
        self.per_epoch = num_batches(self.views, world=self.readers, **self.shape)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this rank's part of every batch from the module's step on, in an order without end."""
        trainer: Any = self.trainer
        rank, world = trainer.global_rank, trainer.world_size
        batches = Batches(self, trainer.lightning_module.step, range(rank, self.readers, world))
        workers = self.fit.num_workers
        return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)

    def batches(self, step: int, readers: Sequence[int]) -> Iterator[Batch]:
        """Yield what some of the readers give for each step from `step` on, without end."""
        settings = {**self.shape, "buffer": max(1, self.fit.buffer // self.readers), "seed": self.seed}
        first, start = divmod(step, self.per_epoch)
        for epoch in itertools.count(first):
            streams = [
                epoch_batches(self.views, epoch=epoch, rank=reader, world=self.readers, start_step=start, **settings)
                for reader in readers
            ]
            for parts in zip(*streams, strict=True):
                yield joined(parts)
            start = 0

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Raise here what a reader has found, as the user's error that it is."""
        if "error" in batch:
            raise UserError(batch["error"])
        return batch


class Batches(IterableDataset[Batch]):
    """The batches of some readers; what can't be read becomes {"error": message}, as errors of processes come garbled.

    Args:
        data: makes them.
        step: to begin with.
        readers: which.
    """

    def __init__(self, data: TrainData, step: int, readers: Sequence[int]) -> None:
        # Without the trainer, which a reading process can't take along.
        self.data, self.step, self.readers = data, step, readers

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self.data.batches(self.step, self.readers)
        except UserError as error:
            yield {"error": str(error)}


def joined(parts: Sequence[dict[str, Tensor]]) -> Batch:
    """Return one batch of several, padded at the end to the longest."""
    length = max(part["y"].shape[1] for part in parts)
    return {name: torch.cat([_padded(part[name], length) for part in parts]) for name in parts[0]}


def _padded(values: Tensor, length: int) -> Tensor:
    missing = length - values.shape[1]
    return values if not missing else F.pad(values, (0, 0) * (values.dim() - 2) + (0, missing))

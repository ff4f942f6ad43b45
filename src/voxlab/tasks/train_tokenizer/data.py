"""Batches of segments for training a tokenizer: those of step n are a function of (seed, n), on any number of ranks.

A batch is a dict: wav (B, 1, N) float32, lengths (B,) samples, and lists of B: id, start, index; see `SegmentDataset`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, default_collate, get_worker_info

from voxlab.data.items import AudioItem
from voxlab.data.segments import SegmentDataset
from voxlab.errors import UserError
from voxlab.tasks.train_tokenizer.settings import Fit

Batch = dict[str, Any]
LogMels = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
_MEL_SEGMENTS = 200
_FEWEST_STEPS = 100  # of an epoch: readers would stall at the borders of shorter ones
_MEL_SEED, _POOL_SEED = 1, 2  # added to the seed


class TokenizerData(LightningDataModule):
    """Training segments without end, and one segment from the middle of each recording for validation.

    Args:
        items: recordings of all splits.
        sample_rate: of the codec, in Hz.
        fit: settings.
        seed: of the random segments.
        max_steps: where training ends.

    Raises:
        UserError: a split is empty, or what `SegmentDataset` refuses.
    """

    def __init__(self, items: Sequence[AudioItem], *, sample_rate: int, fit: Fit, seed: int, max_steps: int) -> None:
        super().__init__()
        self.fit, self.seed, self.max_steps = fit, seed, max_steps
        shape: dict[str, Any] = {"sample_rate": sample_rate, "segment_seconds": fit.segment_seconds}
        shape["resample"] = fit.resample
        self.train_set = SegmentDataset(
            _of_split(items, "train_split", fit.train_split),
            seed=seed,
            segments_per_epoch=fit.segments_per_epoch,
            loudness=None if fit.loudness is None else (fit.loudness[0], fit.loudness[1]),
            **shape,
        )
        if fit.segments_per_epoch is None:
            self.train_set = self.train_set.others(max(len(self.train_set), _FEWEST_STEPS * fit.batch_size), seed)
        self.val_set = None
        if fit.val_split is not None:
            chosen = evenly(_of_split(items, "val_split", fit.val_split), fit.val_segments)
            self.val_set = SegmentDataset(chosen, random=False, **shape)

    @property
    def seconds(self) -> float:
        """Audio of the training split."""
        return sum(header.duration for header in self.train_set.headers)

    # ---- loaders ---------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this rank's part of every batch from the module's step on."""
        rank, world = self._place()
        module: Any = self.trainer.lightning_module if self.trainer else None
        first = 0 if module is None else module.step
        batches = StepBatches(len(self.train_set), self.fit.batch_size, first, self.max_steps, rank, world)
        return self._loader(EpochSegments(self.train_set), batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return this rank's share of the validation segments; all of them where there are fewer than ranks."""
        if self.val_set is None:
            return []
        rank, world = self._place()
        every = range(len(self.val_set))
        own = every[rank::world] if len(every) >= world else every
        size = max(1, self.fit.batch_size // world)
        return self._loader(Checked(Subset(self.val_set, own)), batch_size=size)

    def _loader(self, dataset: Dataset[Batch], **batching: Any) -> DataLoader[Batch]:
        workers = self.fit.num_workers
        return DataLoader(
            dataset,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
            worker_init_fn=_one_thread if workers else None,
            **batching,
        )

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Raise here what a reader has found, as the user's error that it is."""
        if "error" in batch:
            raise UserError(batch["error"])
        return batch

    # ---- for the start of training, the same on all ranks ----------------------------------------------------------

    def pool_batches(self, num_segments: int) -> Iterator[Batch]:
        """Return batches of random training segments, for the start of the quantizer."""
        return self._batches(num_segments, self.seed + _POOL_SEED)

    def measure_mel(self, compute: LogMels) -> tuple[float, float]:
        """Return mean and standard deviation of the log-mel of 200 training segments.

        Args:
            compute: wav (B, 1, N), lengths (B,) to log-mel (B, bins, F) and mask (B, F); on any device.
        """
        total, squares, count = 0.0, 0.0, 0
        for batch in self._batches(_MEL_SEGMENTS, self.seed + _MEL_SEED):
            values = _valid(compute, batch)
            total, squares = total + float(values.sum()), squares + float(values.square().sum())
            count += values.numel()
        mean = total / count
        return mean, max(squares / count - mean**2, 0.0) ** 0.5

    def measure_constant(self, compute: LogMels) -> float:
        """Return the mean absolute deviation of 200 validation segments from the median of each bin.

        It is the error of a decoder that always gives the same frame, the best one for these segments.

        Args:
            compute: as in `measure_mel`.
        """
        assert self.val_set is not None
        every = Checked(Subset(self.val_set, evenly(range(len(self.val_set)), _MEL_SEGMENTS)))
        batches = DataLoader(every, self.fit.batch_size, collate_fn=collate)
        frames = torch.cat([_valid(compute, self.on_before_batch_transfer(batch, 0)) for batch in batches])
        return float((frames - frames.median(0).values).abs().mean())

    def _batches(self, num_segments: int, seed: int) -> Iterator[Batch]:
        segments = Checked(self.train_set.others(num_segments, seed))
        for batch in DataLoader(segments, self.fit.batch_size, collate_fn=collate):
            yield self.on_before_batch_transfer(batch, 0)


class StepBatches(Sampler[list[tuple[int, int]]]):
    """(epoch, index) of this rank's segments in each batch, from step `first` to `last`.

    Args:
        length: segments of an epoch, at least one batch.
        batch_size: segments of a batch over all ranks, a multiple of `world`.
        first: step to begin with.
        last: step to end before.
        rank: whose part.
        world: number of ranks.
    """

    def __init__(self, length: int, batch_size: int, first: int, last: int, rank: int, world: int) -> None:
        self.per_epoch, self.batch_size, self.first, self.last = length // batch_size, batch_size, first, last
        self.own = range(rank * batch_size // world, (rank + 1) * batch_size // world)

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first, self.last):
            epoch, position = divmod(step, self.per_epoch)
            yield [(epoch, position * self.batch_size + item) for item in self.own]


class Checked(Dataset[Batch]):
    """Segments; what can't be used becomes {"error": message}, as errors of worker processes come with tracebacks."""

    def __init__(self, segments: Dataset[Batch]) -> None:
        self.segments = segments

    def __len__(self) -> int:
        return len(self.segments)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Batch:
        try:
            return self._read(index)
        except UserError as error:
            return {"error": str(error)}

    def _read(self, index: Any) -> Batch:
        return self.segments[index]


class EpochSegments(Checked):
    """Random segments by (epoch, index); each process that reads has an epoch of its own."""

    def __init__(self, segments: SegmentDataset) -> None:
        super().__init__(segments)
        self.base, self._reader = segments, -2

    def _read(self, index: tuple[int, int]) -> Batch:
        worker = get_worker_info()
        reader = -1 if worker is None else worker.id
        if reader != self._reader:  # the epoch of a dataset is shared between processes, which read ahead differently
            self.segments, self._reader = self.base.others(len(self.base), self.base.seed), reader
        self.segments.set_epoch(index[0])  # type: ignore[union-attr]
        return super()._read(index[1])


def collate(segments: Sequence[Batch]) -> Batch:
    """Make a batch of segments, or of the first error among them."""
    errors = [segment for segment in segments if "error" in segment]
    return errors[0] if errors else default_collate(list(segments))


def evenly(items: Sequence[Any], limit: int | None) -> list[Any]:
    """Return at most `limit` items, evenly spaced."""
    count = len(items) if limit is None else min(limit, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def _valid(compute: LogMels, batch: Batch) -> Tensor:
    """Return the valid frames of a batch, (frames, bins) float64 on the CPU."""
    log_mel, mask = compute(batch["wav"], batch["lengths"])
    return log_mel.transpose(1, 2)[mask].double().cpu()


def _of_split(items: Sequence[AudioItem], key: str, split: str) -> list[AudioItem]:
    chosen = [item for item in items if item.split == split]
    if not chosen:
        found = ", ".join(f"{name} ({count})" for name, count in sorted(Counter(item.split for item in items).items()))
        remedy = ", or train without validation (fit.val_split=null)" if key == "val_split" else ""
        raise UserError(
            f"fit.{key}={split}: no recording is in this split. Present: {found or 'none'}.\nName one of these, deal "
            f"splits with a larger share (data.split_fractions='{{train: 0.8, validation: 0.2}}'; data=audiofolder "
            f"data.splits=fraction besides){remedy}."
        )
    return chosen

"""A Lightning DataModule over a built token data set; optionally with audio, decoded on the fly."""

from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader, DistributedSampler

from voxlab.codecs.base import Codec
from voxlab.data.tokens import TokenDataset, check_codec, collate, decode_batch


class WindowSampler(DistributedSampler[Any]):
    """Deals the windows to the ranks, and draws them anew every epoch."""

    dataset: TokenDataset

    def set_epoch(self, epoch: int) -> None:
        """Order and draw the windows of an epoch; Lightning calls this before each."""
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)


class TokenDataModule(LightningDataModule):
    """Batches of windows, see `collate` for what they hold.

    Training takes random windows in random order, other in every epoch and the same in every run with one seed;
    validation and test take windows side by side that cover every frame once.

    Args:
        root: folder that the stage build of `task=extract` wrote.
        window_frames: frames of a window; None: whole recordings.
        batch_size: windows in a batch, on each rank.
        columns: conditioning columns, in this order; None: all.
        normalize: "standard", "minmax" or None, by the statistics of `train_split`.
        train_split: name of the split.
        val_split: name of the split, "validation" for example; None: no validation.
        test_split: name of the split, "test" for example; None: no test.
        num_workers: processes that read, besides the main one.
        seed: of the windows and their order.
        codec: adds `wav` (B, C, T) float32 and `wav_lengths` (B,) to each batch, decoded in the main process.
    """

    def __init__(
        self,
        *,
        root: Path | str,
        window_frames: int | None,
        batch_size: int = 32,
        columns: list[str] | None = None,
        normalize: str | None = "standard",
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        num_workers: int = 0,
        seed: int = 0,
        codec: Codec | None = None,
    ) -> None:
        super().__init__()
        self.root, self.window_frames, self.batch_size, self.num_workers = root, window_frames, batch_size, num_workers
        self.columns, self.normalize, self.seed, self.codec = columns, normalize, seed, codec
        self.train_split, self.val_split, self.test_split = train_split, val_split, test_split

    def setup(self, stage: str | None = None) -> None:
        """Load the codec, when there is one, on the trainer's device."""
        if self.codec is not None:
            check_codec(self.codec.info, self.dataset(self.train_split).info)
            self.codec = self.codec.to(self.trainer.strategy.root_device if self.trainer else "cpu")

    def dataset(self, split: str, *, random: bool = False) -> TokenDataset:
        """Return the windows of a split: random ones, or all side by side."""
        return TokenDataset(
            self.root,
            split,
            window_frames=self.window_frames,
            hop_frames=None if random else self.window_frames,
            columns=self.columns,
            normalize=self.normalize,
            stats_split=self.train_split,
            seed=self.seed,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of random windows."""
        return self._loader(self.dataset(self.train_split, random=True), shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return batches of all windows of the validation split."""
        return self._loader(self.dataset(self.val_split)) if self.val_split else []

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return batches of all windows of the test split."""
        return self._loader(self.dataset(self.test_split)) if self.test_split else []

    def _loader(self, dataset: TokenDataset, *, shuffle: bool = False) -> DataLoader[Any]:
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        # A DistributedSampler of our own: Lightning takes it as it is, and tells it the epoch.
        sampler = WindowSampler(dataset, num_replicas=world, rank=rank, shuffle=shuffle, seed=self.seed)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Add the audio of the windows."""
        if self.codec is None:
            return batch
        wav, lengths = decode_batch(batch, self.codec)
        return batch | {"wav": wav, "wav_lengths": lengths}

"""Training frames a second out of a store of features, and how fast its files are read; ratios of one run.

Reading: blocks of 256 frames in random order against the same bytes from the first to the last; from the page cache by
CPU time (others may share the machine), from the disk by the clock. Training: steps of a linear model, batch 512, fed
as task=laughter feeds it, against a Dataset that maps the files and returns single frames to a DataLoader; files in the
page cache, by the clock. Both read ahead on a second core: here a thread, there a process.

.venv/bin/python benchmarks/feature_loader.py --minutes 6
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from voxlab.data.episodes import Event
from voxlab.data.feature_store import FeatureStore, open_store
from voxlab.data.frame_blocks import LabelledView, epoch_batches
from voxlab.data.frame_file import expect, read_into
from voxlab.data.store_writer import EpisodeFacts, EpisodeWriter, begin_store, write_index
from voxlab.parallel import launched
from voxlab.tasks.laughter.batches import TrainData
from voxlab.tasks.laughter.settings import Fit
from voxlab.tasks.read_ahead import ahead

BATCH, BLOCK, DIM, AHEAD = 512, 256, 4096, 8
BUFFER = 8192  # frames: of one of the eight streams that training reads
MEASURED_BATCHES = 170  # nearly an epoch, in which buffers are filled as often as batches need it


class PlainDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One frame an item, the obvious way."""

    def __init__(self, store: FeatureStore) -> None:
        paths = [episode.features().path for episode in store.episodes]
        self.arrays = [np.load(path, mmap_mode="r") for path in paths]
        self.index = [(number, frame) for number, array in enumerate(self.arrays) for frame in range(len(array))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        number, frame = self.index[index]
        return torch.from_numpy(self.arrays[number][frame].astype(np.float32)), torch.tensor(float(frame % 100 == 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="of an episode")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the store is written; default: a temporary one"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = write_store(Path(folder), options.episodes, round(options.minutes * 750))
        views = [view_of(store, number) for number in range(options.episodes)]
        frames = sum(len(view.y) for view in views)
        print(f"{options.episodes} episodes, {frames} frames of {DIM}, {frames * DIM * 2 / 1e9:.2f} GB.\n")
        compare_reading(store, views, options.rounds)
        compare_training(store, views, options.rounds)


def write_store(out: Path, episodes: int, frames: int) -> FeatureStore:
    """Write random features."""
    rng, features = np.random.default_rng(0), {"name": "noise", "dim": DIM, "frame_rate": 12.5, "dtype": "float16"}
    settings: dict[str, Any] = {"features": features, "data": {"corpus": "none"}}
    store = begin_store(out, settings, {})
    for number in range(episodes):
        facts = EpisodeFacts(f"train/{number:03d}", f"{number:03d}", "show", "train", frames / 12.5, frames)
        with EpisodeWriter(store, facts, dim=DIM, dtype="float16") as writer:
            for start in range(0, frames, BLOCK):
                count = min(BLOCK, frames - start)
                writer.add(0, start, rng.standard_normal((count, DIM), np.float32).astype(np.float16))
            writer.finish(settings=settings, events=[Event("Laughter", 1.0, 2.0)])
    write_index(store, {f"train/{number:03d}": "train" for number in range(episodes)}, {}, accepted=True)
    return open_store(out)


def view_of(store: FeatureStore, number: int) -> LabelledView:
    """Return an episode with a positive in a hundred frames; opened anew, so that it is checked anew."""
    episode = store.episodes[number]
    ones = np.ones(episode.num_frames, np.float32)
    y = (np.arange(episode.num_frames) % 100 == 0).astype(np.float32)
    return LabelledView(episode.features(), y, ones > 0, ones, number)


# ---- reading -------------------------------------------------------------------------------------------------------


def compare_reading(store: FeatureStore, views: list[LabelledView], rounds: int) -> None:
    """Print GB/s of each way to read all files once."""
    paths = [episode.features().path for episode in store.episodes]
    gigabytes = sum(path.stat().st_size for path in paths) / 1e9
    ways: dict[str, Callable[[], None]] = {
        "plain, first to last": lambda: read_plainly(paths),
        "blocks in random order": lambda: read_blocks(views),
        "the same, looked through for NaN": lambda: read_blocks([view_of(store, n) for n in range(len(views))]),
        "batches of 512, float32": lambda: exhaust(
            epoch_batches(views, batch_size=BATCH, buffer=BUFFER, seed=0, epoch=0)
        ),
    }
    print("| | from the page cache, GB/s | of plain | from the disk, GB/s | of plain |\n|---|---|---|---|---|")
    best: dict[tuple[str, bool], float] = {}
    for _ in range(rounds):
        for cold in (False, True):
            for name, read in ways.items():
                if cold:
                    drop(paths)
                speed = gigabytes / seconds(read, time.perf_counter if cold else time.process_time)
                best[name, cold] = max(best.get((name, cold), 0.0), speed)
    plain = next(iter(ways))
    for name in ways:
        cells = [f"{best[name, cold]:.2f} | {best[name, cold] / best[plain, cold]:.2f}" for cold in (False, True)]
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def read_plainly(paths: list[Path]) -> None:
    """Read files into one buffer of the size of a block."""
    buffer = bytearray(BLOCK * DIM * 2)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def read_blocks(views: list[LabelledView]) -> None:
    """Read all blocks, each once, as `epoch_batches` does it: the disk hears of them a little earlier."""
    spans = [(view.features, start) for view in views for start in range(0, len(view.y), BLOCK)]
    spans = [spans[index] for index in np.random.default_rng(0).permutation(len(spans))]
    buffer = np.empty((BLOCK, DIM), np.float16)
    for place, (frames, start) in enumerate(spans):
        for later in spans[place + AHEAD : place + AHEAD + 1]:
            expect(later[0], later[1], BLOCK)
        stop = min(start + BLOCK, frames.shape[0])
        read_into(frames, slice(start, stop), buffer[: stop - start])


def drop(paths: list[Path]) -> None:
    """Ask the kernel to forget the files."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---- training ------------------------------------------------------------------------------------------------------


def compare_training(store: FeatureStore, views: list[LabelledView], rounds: int) -> None:
    """Print frames a second of a linear model that is trained from either source, files in the page cache."""
    dataset = PlainDataset(store)
    ways: dict[str, Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]] = {
        "plain Dataset": lambda: iter(DataLoader(dataset, BATCH, shuffle=True)),
        "plain Dataset, one worker": lambda: iter(DataLoader(dataset, BATCH, shuffle=True, num_workers=1)),
        "task=laughter": lambda: ours(views),
    }
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, begin in ways.items():
            pairs = begin()
            next(pairs)  # a process starts, or a buffer is filled
            best[name] = max(best[name], train(itertools.islice(pairs, MEASURED_BATCHES)))
            del pairs
    print("| linear model, batch 512 | frames/s | vs. plain |\n|---|---|---|")
    for name, speed in best.items():
        print(f"| {name} | {speed:.0f} | {speed / best['plain Dataset']:.1f} |")


def ours(views: list[LabelledView]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the batches of task=laughter, epoch after epoch."""
    data = TrainData(views, Fit(batch_size=BATCH), context=0, seed=0, world=1)
    for batch in ahead(data.batches(0, range(data.readers)), data.fit.read_ahead):
        yield batch["features"][:, 0], batch["y"][:, 0]


def train(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Take a step for each batch; frames a second."""
    model = torch.nn.Linear(DIM, 1)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    frames, started = 0, time.perf_counter()
    for x, y in pairs:
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y).backward()
        optimizer.step()
        frames += len(y)
    return frames / (time.perf_counter() - started)


def exhaust(items: Iterable[Any]) -> None:
    """Go through all items."""
    for _ in items:
        pass


def seconds(work: Callable[[], None], clock: Callable[[], float]) -> float:
    """Time a call."""
    started = clock()
    work()
    return clock() - started


if __name__ == "__main__":
    torch.set_num_threads(1)
    launched("cpu")  # as every run does: memory is reused
    main()

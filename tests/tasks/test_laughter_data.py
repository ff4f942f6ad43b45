"""Splits, statistics and batches of task=laughter: the same for any number of ranks, and from any step on."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.laughter_stores import write_store
from voxlab.data.feature_store import FeatureStore, open_store
from voxlab.data.frame_blocks import LabelledView
from voxlab.errors import UserError
from voxlab.parallel import Ranks
from voxlab.tasks.laughter import moments
from voxlab.tasks.laughter.batches import TrainData, num_readers
from voxlab.tasks.laughter.data import check_shows, describe_split, labelled, read_split, shuffled
from voxlab.tasks.laughter.settings import Fit, read_labels
from voxlab.tasks.read_ahead import ahead

LABELS = read_labels({}, 5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root = tmp_path_factory.mktemp("stores")
    return open_store(write_store(root, splits={"train": 4, "validation": 2}, dim=16, frames=1000, events=4))


def views(frames: list[int], dim: int = 3, seed: int = 0) -> list[LabelledView]:
    """Features whose first number is unique: the index over all frames."""
    generator, start, found = np.random.default_rng(seed), 0, []
    for number, count in enumerate(frames):
        features = generator.standard_normal((count, dim)).astype(np.float32)
        features[:, 0] = np.arange(start, start + count)
        mask, weight = generator.random(count) < 0.9, np.where(generator.random(count) < 0.7, 1.5, 0).astype(np.float32)
        found.append(LabelledView(features, (generator.random(count) < 0.1).astype(np.float32), mask, weight, number))
        start += count
    return found


def used(items: list[LabelledView]) -> np.ndarray:
    return np.concatenate([view.features[:][:, 0][view.used()] for view in items])


def epoch(data: TrainData, world: int, rank: int, step: int = 0, count: int | None = None) -> list[dict[str, Any]]:
    """This rank's batches of an epoch."""
    readers = range(rank, data.readers, world)
    return list(itertools.islice(data.batches(step, readers), data.per_epoch if count is None else count))


def rows(batch: dict[str, Any]) -> set[tuple[float, ...]]:
    used = batch["mask"] & (batch["weight"] > 0)
    return {tuple(row) for row in torch.cat([batch["features"][used], batch["y"][used][:, None]], 1).tolist()}


@pytest.mark.parametrize("context", [0, 7])
def test_the_batch_of_a_step_is_the_same_on_1_2_4_and_8_ranks(context: int) -> None:
    items = views([3000, 2000, 1500])
    fit = Fit(batch_size=64 if not context else 8, block=64, buffer=2048)
    whole = [rows(batch) for batch in epoch(TrainData(items, fit, context, 0, 1), 1, 0)]
    for world in (2, 4, 8):
        data = TrainData(items, fit, context, 0, world)
        parts = [[rows(batch) for batch in epoch(data, world, rank)] for rank in range(world)]
        assert [set.union(*step) for step in zip(*parts, strict=True)] == whole
        assert sum(map(len, itertools.chain(*parts))) == sum(map(len, whole))  # nothing twice


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_holds_each_frame_once_but_for_a_few_blocks(world: int) -> None:
    items = views([3000, 2000, 1500])
    data = TrainData(items, Fit(batch_size=64, block=64, buffer=2048), 0, 0, world)
    batches = [batch for rank in range(world) for batch in epoch(data, world, rank)]
    seen = np.concatenate([batch["features"][:, 0, 0].numpy() for batch in batches])
    assert len(np.unique(seen)) == len(seen)
    assert set(seen) <= set(used(items))
    assert len(seen) >= len(used(items)) - data.readers * 64


def test_batches_can_start_at_any_step() -> None:
    items = views([3000, 2000])
    data = TrainData(items, Fit(batch_size=64, block=64, buffer=1024), 0, 0, 1)
    number = data.per_epoch + 5
    whole = epoch(data, 1, 0, count=number + 3)
    for step in (3, data.per_epoch - 1, data.per_epoch, number):
        for found, expected in zip(epoch(data, 1, 0, step, number + 3 - step), whole[step:], strict=True):
            assert all(torch.equal(found[name], expected[name]) for name in expected)
    first, second = rows(whole[0]), rows(whole[data.per_epoch])
    assert first != second  # epochs differ in their order


def test_batch_sizes_are_what_was_asked_for() -> None:
    items = views([4000, 4000])
    data = TrainData(items, Fit(batch_size=128, block=64), 0, 0, 1)
    sizes = [len(batch["y"]) for batch in epoch(data, 1, 0)]
    assert max(sizes) <= 140  # each of 8 readers deals its own frames evenly
    assert 115 <= np.mean(sizes) <= 128
    sequences = TrainData(items, Fit(batch_size=16, block=64), 10, 0, 1)
    shapes = {tuple(batch["features"].shape) for batch in epoch(sequences, 1, 0)[:-1]}
    assert all(length <= 74 and dim == 3 and count <= 16 for count, length, dim in shapes)


def test_readers() -> None:
    assert [num_readers(1000, world) for world in (1, 2, 3, 4, 6, 8, 16)] == [8, 8, 6, 8, 6, 8, 16]
    assert [num_readers(9, world) for world in (1, 2, 4)] == [2, 2, 4]
    assert num_readers(1, 1) == 1


def test_too_small_batches() -> None:
    with pytest.raises(UserError, match=r"fit.batch_size=3: with 2 ranks, give 8 or more"):
        TrainData(views([4000]), Fit(batch_size=3, block=64), 0, 0, 2)


def test_more_ranks_than_blocks() -> None:
    with pytest.raises(UserError, match="2 blocks of training frames can't be shared by 3 readers"):
        TrainData(views([128]), Fit(batch_size=64, block=64), 0, 0, 3)


def test_errors_of_reading_arrive_as_such() -> None:
    class Broken:
        shape = (4000, 3)

        def __getitem__(self, key: slice) -> np.ndarray:
            raise UserError("a0.features.npy has become shorter")

    items = [dataclasses.replace(view, features=Broken()) for view in views([4000])]
    data = TrainData(items, Fit(batch_size=64, block=64), 0, 0, 1)
    with pytest.raises(UserError, match="has become shorter"):
        next(data.part(0, 0, 1))


@pytest.mark.parametrize("count", [0, 3])
def test_reading_ahead_keeps_the_order_and_stops_with_its_user(count: int) -> None:
    read: list[int] = []

    def batches() -> Iterator[Any]:
        for number in itertools.count():
            read.append(number)
            yield {"number": number}

    stream = ahead(batches(), count)
    assert [next(stream)["number"] for _ in range(50)] == list(range(50))
    stream.close()
    assert 50 <= len(read) <= 50 + count


# ---- splits --------------------------------------------------------------------------------------------------------


def test_a_split_is_labelled(store: FeatureStore) -> None:
    train = read_split(store, "train", LABELS)
    assert [view.features.shape for view in train] == [(1000, 16)] * 4
    assert sum(view.labels.counts["positives"] for view in train) == 4 * 4 * 5
    facts = describe_split("train", train, 12.5)
    assert facts["train_events"] == facts["train_events_merged"] == 16
    assert facts["train_hours"] == pytest.approx(4000 / 12.5 / 3600, abs=1e-4)
    assert facts["train_events_per_hour"] == pytest.approx(16 / (4000 / 12.5 / 3600), rel=1e-3)
    assert facts["train_prior"] == pytest.approx(80 / (4000 - facts["train_ignored"]))
    with pytest.raises(UserError, match="no episode of the split test; it has train, validation"):
        read_split(store, "test", LABELS)


def test_every_view_is_read_and_none_counted_twice(tmp_path: Path) -> None:
    two = open_store(write_store(tmp_path, splits={"train": 2}, dim=16, frames=500, events=2, views=2))
    train = read_split(two, "train", LABELS)
    assert [(view.episode.key[-1], view.index) for view in train] == [
        (train[number].episode.key[-1], number % 2) for number in range(4)
    ]
    assert describe_split("train", train, 12.5)["train_events"] == 4
    assert [view.episode for view in labelled(train, [view.labels.mask.astype(np.float32) for view in train])] == [
        0,
        0,
        1,
        1,
    ]


def test_horizon_is_scored_by_windows(store: FeatureStore) -> None:
    (view, *_) = read_split(store, "train", read_labels({"mode": "horizon"}, 5))
    window = read_split(store, "train", LABELS)[0]
    assert 0 < view.labels.y.max() < 1
    assert np.array_equal(view.scored.y, window.labels.y)


def test_shuffled_labels_keep_their_number(store: FeatureStore) -> None:
    train = read_split(store, "train", LABELS)
    dealt = shuffled(train, 0)
    assert sum(view.labels.y.sum() for view in dealt) == sum(view.labels.y[view.labels.mask].sum() for view in train)
    assert all(np.array_equal(a.labels.mask, b.labels.mask) for a, b in zip(dealt, train, strict=True))
    assert any(not np.array_equal(a.labels.y, b.labels.y) for a, b in zip(dealt, train, strict=True))
    assert all(view.scored is view.labels for view in dealt)


def test_a_show_in_two_splits_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    check_shows(store, allow=False)
    first, *others = store.episodes
    mixed = dataclasses.replace(store, episodes=(dataclasses.replace(first, show=others[-1].show), *others))
    with pytest.raises(UserError, match=r"1 shows are in more than one split: .*data.allow_show_overlap=true"):
        check_shows(mixed, allow=False)
    check_shows(mixed, allow=True)


def test_damaged_events_are_named(tmp_path: Path) -> None:
    root = write_store(tmp_path, splits={"train": 1}, dim=16, frames=400, events=2)
    path = next(root.glob("*/train/*/events.json"))
    path.write_text(json.dumps([{"label": "Laughter", "start": 40.0, "end": 41.0}] * 3))
    with pytest.raises(UserError, match="annotation does not match audio"):
        read_split(open_store(root), "train", LABELS)
    path.write_text("[")
    with pytest.raises(UserError, match=r"events.json can't be read"):
        read_split(open_store(root), "train", LABELS)


# ---- statistics ----------------------------------------------------------------------------------------------------


def test_moments_are_numpys_whatever_the_number_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [dataclasses.replace(view, features=view.features[:] * 3 + 1000) for view in views([5000, 100, 4096])]
    frames = np.concatenate([view.features[:][view.mask] for view in items]).astype(np.float64)
    mean, std = moments.measure(items, Ranks())
    assert mean.numpy() == pytest.approx(frames.mean(0), rel=1e-6)
    assert std.numpy() == pytest.approx(frames.std(0), rel=1e-5)
    parts: list[Any] = []
    monkeypatch.setattr(moments, "gather", lambda ranks, own: parts.append(own) or [own])
    for rank in (1, 2):
        with pytest.raises(KeyError):  # its own part alone lacks the first view
            moments.measure(items, Ranks(rank, 3))
    monkeypatch.setattr(moments, "gather", lambda ranks, own: [own, *parts])
    again = moments.measure(items, Ranks(0, 3))
    assert torch.equal(again[0], mean)
    assert torch.equal(again[1], std)


def test_views_without_frames_that_count() -> None:
    items = views([100, 200])
    items[0].mask[:] = False
    mean, _ = moments.measure(items, Ranks())
    assert mean.numpy() == pytest.approx(items[1].features[:][items[1].mask].mean(0), rel=1e-5)


# ---- memory --------------------------------------------------------------------------------------------------------


MEMORY = """
import sys
from pathlib import Path
import numpy as np
import torch
from voxlab.data.frame_file import HEADER_BYTES, FrameFile
from voxlab.data.frame_blocks import LabelledView
from voxlab.parallel import launched
from voxlab.tasks.laughter.batches import TrainData
from voxlab.tasks.read_ahead import ahead
from voxlab.tasks.laughter.settings import Fit
launched("cpu")
frames, dim, views = 45_000, 4096, []
for number in range(55):
    path = Path(sys.argv[1]) / f"{number}.npy"
    with path.open("wb") as file:
        file.truncate(HEADER_BYTES + frames * dim * 2)
    ones = np.ones(frames, np.float32)
    views.append(LabelledView(FrameFile(path, (frames, dim), np.dtype(np.float16)), ones, ones > 0, ones, number))
read, model = 0, torch.nn.Linear(dim, 1)
optimizer = torch.optim.AdamW(model.parameters())
data = TrainData(views, Fit(), 0, 0, 1)
for batch in ahead(data.batches(0, range(data.readers)), data.fit.read_ahead):
    optimizer.zero_grad()
    torch.nn.functional.binary_cross_entropy_with_logits(model(batch["features"])[..., 0], batch["y"]).backward()
    optimizer.step()
    read += len(batch["y"]) * dim * 2
    if read > 5e9:
        break
size = sum(path.stat().st_size for path in Path(sys.argv[1]).iterdir())
status = Path("/proc/self/status").read_text()  # ru_maxrss would hold the memory of the process that started this one
print(size, read, status.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.slow
def test_a_store_of_20_gb_trains_in_less_than_2_gb_of_memory(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    size, read, peak = map(int, done.stdout.split())
    assert size > 20e9
    assert read > 5e9
    assert peak * 1024 < 2e9

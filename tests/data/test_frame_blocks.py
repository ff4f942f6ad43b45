"""The block stream: every used frame once an epoch, readers disjoint, any step can be next, memory bounded."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab.data.frame_blocks import LabelledView, epoch_batches, num_batches
from voxlab.errors import UserError


def make_views(lengths: list[int], seed: int = 0, keep: float = 0.5, known: float = 0.9) -> list[LabelledView]:
    """Views whose frames hold their own global number (two halves that float16 can hold) and random labels."""
    rng, views, first = np.random.default_rng(seed), [], 0
    for episode, length in enumerate(lengths):
        number = np.arange(first, first + length)
        features = np.stack([number // 1000, number % 1000], 1).astype(np.float16)
        mask, weight = rng.random(length) < known, np.where(rng.random(length) < keep, 1 + number / 100, 0)
        views.append(
            LabelledView(features, (number % 3 == 0).astype(np.float32), mask, weight.astype(np.float32), episode)
        )
        first += length
    return views


def numbers(batches: list[dict[str, torch.Tensor]]) -> list[int]:
    return [int(high * 1000 + low) for batch in batches for high, low in batch["features"][:, 0].tolist()]


def used_numbers(views: list[LabelledView]) -> np.ndarray:
    return np.flatnonzero(np.concatenate([view.used() for view in views]))


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 700), min_size=1, max_size=5),
    world=st.integers(1, 4),
    block=st.sampled_from([16, 64, 256]),
    batch_size=st.integers(8, 90),
    buffer=st.sampled_from([1, 100, 5000]),
    seed=st.integers(0, 3),
)
def test_readers_share_the_used_frames_of_an_epoch(lengths, world, block, batch_size, buffer, seed):
    views = make_views([*lengths, 6 * block], keep=1.0, known=0.8)
    options = {"batch_size": batch_size, "block": block}
    steps = num_batches(views, **options, world=world)
    used, seen = used_numbers(views), []
    for rank in range(world):
        batches = list(epoch_batches(views, **options, buffer=buffer, seed=seed, epoch=1, readers=[rank], world=world))
        assert len(batches) == steps
        sizes = [len(batch["y"]) for batch in batches]
        assert max(sizes) - min(sizes) <= 1
        assert world > 1 or max(sizes) <= batch_size
        seen += numbers(batches)
    assert sorted(seen) == used.tolist()


def test_more_readers_than_sequences_in_a_batch_get_the_same_number_of_batches():
    views = make_views([64 * 9], keep=1.0)
    for world, batch_size, steps in ((8, 1, 1), (4, 1, 2), (2, 2, 3), (1, 4, 3), (1, 100, 1)):
        options = {"batch_size": batch_size, "block": 64, "world": world, "context": 5}
        readers = [list(epoch_batches(views, **options, seed=0, epoch=0, readers=[rank])) for rank in range(world)]
        assert [len(batches) for batches in readers] == [steps] * world == [num_batches(views, **options)] * world
        assert sum(len(batch["y"]) for batches in readers for batch in batches) == 9


def test_batches_hold_what_belongs_to_each_frame():
    views = make_views([500, 300])
    y, weight = (np.concatenate([getattr(view, name) for view in views]) for name in ("y", "weight"))
    for batch in epoch_batches(views, batch_size=32, seed=0, epoch=0):
        index = numbers([batch])
        assert batch["features"].shape == (len(index), 1, 2)
        assert batch["features"].dtype == batch["y"].dtype == batch["weight"].dtype == torch.float32
        assert batch["y"][:, 0].tolist() == y[index].tolist()
        assert batch["weight"][:, 0].tolist() == weight[index].tolist()
        assert batch["mask"].all()


@pytest.mark.parametrize("context", [0, 20])
def test_any_step_can_be_the_first(context):
    views = make_views([900, 40, 500])
    options = {"batch_size": 60 if context == 0 else 3, "block": 64, "buffer": 150, "seed": 4, "epoch": 2}
    options |= {"readers": [1, 0], "world": 2, "context": context}
    whole = list(epoch_batches(views, **options))
    for step in range(len(whole) + 1):
        rest = list(epoch_batches(views, **options, start_step=step))
        assert len(rest) == len(whole) - step
        for left, right in zip(rest, whole[step:], strict=True):
            assert all(torch.equal(left[name], right[name]) for name in left)


class Counting:
    """Frames that count what is read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.read = values, values.shape, 0

    def __getitem__(self, key: slice) -> np.ndarray:
        self.read += len(self.values[key])
        return self.values[key]


def test_a_late_start_reads_only_the_rest():
    source = Counting(np.zeros((10_000, 2), np.float16))
    view = LabelledView(source, np.zeros(10_000, np.float32), np.ones(10_000, bool), np.ones(10_000, np.float32))
    list(epoch_batches([view], batch_size=100, block=100, buffer=1000, seed=0, epoch=0, start_step=90))
    assert source.read == 1000


def test_order_changes_with_seed_and_epoch_and_mixes_blocks():
    views = make_views([4000], keep=1.0, known=1.0)
    options = {"batch_size": 100, "block": 100, "buffer": 2000}
    first, other_seed, other_epoch, again = (
        numbers(list(epoch_batches(views, **options, seed=seed, epoch=epoch)))
        for seed, epoch in ((0, 0), (1, 0), (0, 1), (0, 0))
    )
    assert first == again
    assert first != other_seed
    assert first != other_epoch
    assert len({number // 100 for number in first[:100]}) > 10  # of the 20 blocks in the buffer


def test_sequences_are_blocks_with_the_frames_before_them():
    views = make_views([150, 64, 30], keep=0.6)
    starts = []
    for batch in epoch_batches(views, batch_size=2, block=64, context=10, seed=0, epoch=0):
        for row in range(len(batch["y"])):
            frames = [int(high * 1000 + low) for high, low in batch["features"][row].tolist()]
            episode = int(np.searchsorted([150, 214, 244], frames[0], side="right"))
            first, view = (0, 150, 214)[episode], views[episode]
            begin = frames[0] - first
            start = -(-begin // 64) * 64 if begin else 0  # of the block: context frames come before it
            stop = min(start + 64, len(view.y))
            starts.append((episode, start))
            assert begin == max(0, start - 10)
            length = stop - begin
            assert frames[:length] == list(range(first + begin, first + stop))
            used = view.used()[begin:stop] & (np.arange(begin, stop) >= start)
            assert batch["mask"][row, :length].tolist() == used.tolist()
            assert batch["weight"][row, :length].tolist() == np.where(used, view.weight[begin:stop], 0).tolist()
            assert batch["y"][row, :length].tolist() == view.y[begin:stop].tolist()
            assert not batch["mask"][row, length:].any()
            assert not batch["features"][row, length:].any()
    assert sorted(starts) == [(0, 0), (0, 64), (0, 128), (1, 0), (2, 0)]


def test_blocks_without_a_used_frame_are_not_read():
    source = Counting(np.zeros((1000, 2), np.float16))
    weight = np.zeros(1000, np.float32)
    weight[[5, 905]] = 1
    view = LabelledView(source, weight, np.ones(1000, bool), weight)
    batches = list(epoch_batches([view], batch_size=2, block=100, seed=0, epoch=0))
    assert source.read == 200
    assert sum(len(batch["y"]) for batch in batches) == 2


def test_messages():
    views = make_views([100])
    with pytest.raises(UserError, match=r"2 blocks of training frames can't be shared by 3 readers"):
        next(epoch_batches(views, batch_size=4, block=64, seed=0, epoch=0, world=3))
    zeros = np.zeros(9, np.float32)
    with pytest.raises(UserError, match=r"episode 7: features and labels differ.*features 8, y 9, mask 9, weight 9"):
        LabelledView(np.zeros((8, 2)), zeros, zeros > 0, zeros, episode=7)
    weight = np.zeros(512, np.float32)
    weight[0], weight[256:] = 1, 1
    view = LabelledView(np.zeros((512, 2), np.float16), weight, weight > 0, weight)
    readers = [epoch_batches([view], batch_size=10, seed=0, epoch=0, readers=[rank], world=2) for rank in (0, 1)]
    with pytest.raises(UserError, match=r"1 training frames don't make 13 batches for reader . of 2"):
        [next(reader) for reader in readers]

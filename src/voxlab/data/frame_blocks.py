"""Training batches out of files of frames: blocks in random order, read one after the other, mixed in a buffer.

What a batch holds is a function of (seed, epoch, step, reader): no state, no process group, any step can be next.
"""

import heapq
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from voxlab.data.frame_file import Frames, expect, read_into
from voxlab.errors import UserError

Batch = dict[str, torch.Tensor]
_AHEAD = 8  # blocks that the disk fetches while others are read


@dataclass(frozen=True)
class LabelledView:
    """The frames of one view of one episode with what is to be predicted.

    Attributes:
        features: (T, D) frames, by slice.
        y: (T,) float32 targets.
        mask: (T,) bool, True where the target is known.
        weight: (T,) float32, of each frame in the loss; 0 leaves it out.
        episode: number of the episode, the same for all its views.
    """

    features: Frames
    y: np.ndarray
    mask: np.ndarray
    weight: np.ndarray
    episode: int = 0

    def __post_init__(self) -> None:
        lengths = {"features": self.features.shape[0], "y": len(self.y), "mask": len(self.mask)}
        lengths["weight"] = len(self.weight)
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UserError(f"episode {self.episode}: features and labels differ in their number of frames: {found}.")

    def used(self, span: slice = slice(None)) -> np.ndarray:
        """Return which frames of `span` count in the loss, bool."""
        return self.mask[span] & (self.weight[span] > 0)


class _Blocks(NamedTuple):
    """Blocks that hold a used frame: arrays over blocks, in the order of views and time."""

    view: np.ndarray
    start: np.ndarray
    count: np.ndarray  # of used frames


def num_batches(
    views: Sequence[LabelledView], *, batch_size: int, block: int = 256, world: int = 1, context: int = 0
) -> int:
    """Return the batches per epoch, the same for every reader and every epoch; arguments as for `epoch_batches`.

    Raises:
        UserError: there are fewer blocks than readers, or no used frame at all.
    """
    return _num_batches(_plan(views, block), batch_size, world, context)


def _num_batches(blocks: _Blocks, batch_size: int, world: int, context: int) -> int:
    if len(blocks.view) < world:
        raise UserError(
            f"{len(blocks.view)} blocks of training frames can't be shared by {world} readers. Use fewer processes, a "
            "smaller fit.block, or more data."
        )
    if context:
        return min(-(-len(blocks.view) // (world * batch_size)), len(blocks.view) // world)
    return -(-int(blocks.count.sum()) // (world * batch_size))


def epoch_batches(
    views: Sequence[LabelledView],
    *,
    batch_size: int,
    block: int = 256,
    buffer: int = 65_536,
    seed: int,
    epoch: int,
    readers: Sequence[int] = (0,),
    world: int = 1,
    start_step: int = 0,
    context: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of an epoch, each of parts that `readers` give, in this order.

    All blocks that hold a used frame are put in an order that `seed` and `epoch` decide, and each goes to the reader
    that has fewest frames so far. For frame models (context 0) the used frames of blocks that make about `buffer` of
    them are mixed, for the others a block is a sequence.

    Every reader has `num_batches` parts, and no frame is left out, so their sizes differ by a little: with one reader
    they are at most `batch_size`, with several the average is.

    Args:
        views: what to read.
        batch_size: frames that a reader gives to a batch; with context, sequences.
        block: consecutive frames that are read at once.
        buffer: used frames that a reader mixes, in memory as they are stored.
        seed: of the order.
        epoch: counts from 0.
        readers: numbers of those whose parts make up the batches, below `world`.
        world: number of readers in all.
        start_step: batches to leave out, without reading them.
        context: earlier frames that a sequence starts with, at most; they have weight 0. 0: batches of single frames.

    Yields:
        features (B, L, D) float32, y (B, L) float32, weight (B, L) float32, mask (B, L) bool: True where the frame
        counts. L is 1, or up to context + block, padded at the end (zeros, mask False, weight 0).

    Raises:
        UserError: fewer blocks than readers, fewer frames than batches, or a damaged file.
    """
    blocks = _plan(views, block)
    steps = _num_batches(blocks, batch_size, world, context)
    order = np.random.default_rng([seed, epoch]).permutation(len(blocks.view))
    streams: list[Iterator[Any]] = []
    for reader in readers:
        own = order[reader::world] if context else _share(order, blocks.count, reader, world)
        units = len(own) if context else int(blocks.count[own].sum())
        if units < steps:
            raise UserError(
                f"{units} training frames don't make {steps} batches for reader {reader} of {world}. "
                "Lower fit.batch_size or use fewer processes."
            )
        edges = (units * np.arange(steps + 1) // steps).tolist()
        bounds = list(zip(edges[start_step:-1], edges[start_step + 1 :], strict=True))
        if context:
            streams.append(_sequences(views, blocks, own, bounds, block, context))
        else:
            streams.append(_single_frames(views, blocks, own, bounds, block, buffer, [seed, epoch, reader, world]))
    join = _join_sequences if context else _join_frames
    for parts in zip(*streams, strict=True):
        yield join([piece for part in parts for piece in part])


def _share(order: np.ndarray, count: np.ndarray, reader: int, world: int) -> np.ndarray:
    """Deal blocks in their order, each to the reader with the fewest frames; return those of `reader`."""
    loads = [(0, number) for number in range(world)]
    own = []
    for block in order.tolist():
        load, number = loads[0]
        heapq.heapreplace(loads, (load + int(count[block]), number))
        if number == reader:
            own.append(block)
    return np.array(own, np.int64)


def _plan(views: Sequence[LabelledView], block: int) -> _Blocks:
    counts = [np.add.reduceat(view.used(), np.arange(0, len(view.y), block), dtype=np.int64) for view in views]
    count = np.concatenate([np.zeros(0, np.int64), *counts])
    index = np.repeat(np.arange(len(views)), [len(part) for part in counts])
    start = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(part)) * block for part in counts)])
    return _Blocks(index[count > 0], start[count > 0], count[count > 0])


# ---- single frames -------------------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Used frames: features (n, D) as stored, y and weight (n,)."""

    features: np.ndarray
    y: np.ndarray
    weight: np.ndarray

    def take(self, index: np.ndarray) -> "_Rows":
        return _Rows(self.features.take(index, 0), self.y[index], self.weight[index])


def _single_frames(
    views: Sequence[LabelledView],
    blocks: _Blocks,
    own: np.ndarray,
    bounds: Sequence[tuple[int, int]],
    block: int,
    buffer: int,
    key: Sequence[int],
) -> Iterator[list[_Rows]]:
    """Cut parts of batches out of groups of blocks, each group mixed; groups before the first batch are not read."""
    ends = np.cumsum(blocks.count[own])
    group_of = (ends - 1) // buffer
    position, carried, done = bounds[0][0] if bounds else int(ends[-1]), [], 0
    memory = _new_rows(views[0], int(np.bincount(group_of, blocks.count[own]).max()))
    for group in np.unique(group_of):
        chosen = np.flatnonzero(group_of == group)
        first, stop = int(ends[chosen[0]] - blocks.count[own[chosen[0]]]), int(ends[chosen[-1]])
        if stop <= position:
            continue
        _read_rows(views, blocks, np.sort(own[chosen]), block, memory)
        order = np.random.default_rng([*key, int(group)]).permutation(stop - first)
        while done < len(bounds) and bounds[done][1] <= stop:
            end = bounds[done][1]
            yield [*carried, memory.take(order[position - first : end - first])]
            position, carried, done = end, [], done + 1
        if position < stop:  # the last batch of this group goes on in the next
            carried.append(memory.take(order[position - first :]))
            position = stop


def _new_rows(view: LabelledView, count: int) -> _Rows:
    """Return memory for a group: it is filled again and again, since fresh pages cost more than what is read.

    In pages of 2 MB, where the system has them: half a gigabyte of small ones takes a second to be handed out.
    """
    dtype, dim = np.asarray(view.features[:0]).dtype, view.features.shape[1]
    pages = mmap.mmap(-1, count * dim * dtype.itemsize)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    features = np.frombuffer(pages, dtype).reshape(count, dim)
    return _Rows(features, np.empty(count, np.float32), np.empty(count, np.float32))


def _read_rows(views: Sequence[LabelledView], blocks: _Blocks, chosen: np.ndarray, block: int, memory: _Rows) -> None:
    """Read the used frames of some blocks, in the order of files and time, into the first rows of `memory`."""
    filled = 0
    for place, index in enumerate(chosen):
        for later in chosen[place + _AHEAD : place + _AHEAD + 1] if place else chosen[: _AHEAD + 1]:
            expect(views[int(blocks.view[later])].features, int(blocks.start[later]), block)
        view, start = views[int(blocks.view[index])], int(blocks.start[index])
        span = slice(start, min(start + block, len(view.y)))
        part, used = slice(filled, filled + int(blocks.count[index])), view.used(span)
        if used.all():
            read_into(view.features, span, memory.features[part])
        else:
            memory.features[part] = np.asarray(view.features[span])[used]
        memory.y[part], memory.weight[part] = view.y[span][used], view.weight[span][used]
        filled = part.stop


def _join_frames(parts: Sequence[_Rows]) -> Batch:
    """Make a batch and convert it to float32, without a copy in between."""
    count = sum(len(part.y) for part in parts)
    features = torch.empty(count, parts[0].features.shape[1])
    start = 0
    for part in parts:
        features[start : start + len(part.y)].copy_(torch.from_numpy(part.features))
        start += len(part.y)
    y, weight = (
        torch.from_numpy(np.concatenate(arrays))[:, None] for arrays in zip(*(part[1:] for part in parts), strict=True)
    )
    return {"features": features[:, None], "y": y, "weight": weight, "mask": torch.ones_like(y, dtype=torch.bool)}


# ---- sequences -----------------------------------------------------------------------------------------------------


def _sequences(
    views: Sequence[LabelledView],
    blocks: _Blocks,
    own: np.ndarray,
    bounds: Sequence[tuple[int, int]],
    block: int,
    context: int,
) -> Iterator[list[dict[str, np.ndarray]]]:
    """Read blocks in order, each with the frames before it."""
    for start, stop in bounds:
        chosen = own[start:stop]
        yield [_read_sequence(views[int(blocks.view[i])], int(blocks.start[i]), block, context) for i in chosen]


def _join_sequences(sequences: Sequence[dict[str, np.ndarray]]) -> Batch:
    longest = max(len(sequence["y"]) for sequence in sequences)
    return {name: torch.stack([_padded(sequence[name], longest) for sequence in sequences]) for name in sequences[0]}


def _read_sequence(view: LabelledView, start: int, block: int, context: int) -> dict[str, np.ndarray]:
    span = slice(max(0, start - context), min(start + block, len(view.y)))
    counted = view.used(span) & (np.arange(span.start, span.stop) >= start)
    return {
        "features": np.asarray(view.features[span]),
        "y": view.y[span].astype(np.float32),
        "weight": np.where(counted, view.weight[span], 0).astype(np.float32),
        "mask": counted,
    }


def _padded(values: np.ndarray, length: int) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    tensor = tensor if tensor.dtype == torch.bool else tensor.float()
    return torch.cat([tensor, tensor.new_zeros(length - len(tensor), *tensor.shape[1:])])

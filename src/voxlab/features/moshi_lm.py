"""Moshi's language model, run over token streams: its hidden states, for many recordings side by side.

Frame t of the states has read text and semantic codes up to frame t - 1, acoustic codes up to t - 2: what is known when
frame t begins.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from voxlab.codecs.runtime import exact_inference
from voxlab.features.streaming import attention_window, exact_stream, uncompiled
from voxlab.features.streams import ZERO

Item = TypeVar("Item")


class MoshiLm:
    """The temporal transformer of Moshi, without its text and depth heads.

    Args:
        network: moshi's LMModel; its layers may be cut off after the one that is wanted.
        final: whether the states pass the last norm, which belongs to a complete stack of layers.
    """

    def __init__(self, network: Any, *, final: bool) -> None:
        self.network, self.final = network, final

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    @property
    def window(self) -> int:
        """Frames that a frame sees, its own among them."""
        return attention_window(self.network.transformer)

    @property
    def delays(self) -> list[int]:
        """Delay of each row of tokens, in frames."""
        return list(self.network.delays)

    @property
    def initial(self) -> Tensor:
        """(rows, 1) tokens that stand before the first ones."""
        network = self.network
        tokens = [network.text_initial_token_id] + [network.initial_token_id] * network.n_q
        return torch.tensor(tokens)[:, None]

    def stream(self, batch_size: int, max_frames: int) -> Any:
        """Open a stream for `compute` with at most `max_frames` frames per call."""
        return exact_stream(self.network.transformer, self.window, max_frames, batch_size)

    def reset(self, rows: Sequence[bool]) -> None:
        """Let the rows that are True start anew."""
        self.network.transformer.reset_streaming(torch.tensor(rows))

    def compute(self, tokens: Tensor) -> Tensor:
        """Compute (B, k, dim) hidden states of (B, rows, k) delayed tokens, after those of the open stream."""
        tokens = tokens.to(self.device)
        with exact_inference(self.device, self.network.dtype), uncompiled(self.device):
            embedded = self.network.emb[0](tokens[:, 1])
            for index in range(1, self.network.n_q):
                embedded = embedded + self.network.emb[index](tokens[:, 1 + index])
            states = self.network.transformer(embedded + self.network.text_emb(tokens[:, 0]))
            return self.network.out_norm(states) if self.final else states


@dataclass(frozen=True)
class Step:
    """Work of one row in one call of the language model.

    Attributes:
        tokens: (rows, k) delayed tokens.
        fresh: start anew before them.
        skip: states at the front that nobody wants.
        start: frame of the first wanted state.
        last: no more steps of this recording.
    """

    tokens: Tensor
    fresh: bool
    skip: int
    start: int
    last: bool


def run_side_by_side(
    lm: MoshiLm, items: Iterable[Item], steps_of: Callable[[Item], Iterator[Step]], *, batch_size: int, max_frames: int
) -> Iterator[tuple[Item, Step, Tensor]]:
    """Run the steps of many recordings, `batch_size` of them at a time; where one ends the next one begins.

    Args:
        lm: the language model.
        items: recordings; one is taken when a row is free.
        steps_of: gives the steps of a recording, of up to `max_frames` frames each.
        batch_size: rows; fewer where there are fewer recordings.
        max_frames: frames of a call.

    Yields:
        recording, step and (k - skip, dim) states, in order for each recording.
    """
    waiting = iter(items)
    first = list(islice(waiting, batch_size))
    if not first:
        return
    queue = chain(first, waiting)
    rows = [_work(queue, steps_of) for _ in first]
    with lm.stream(len(rows), max_frames):
        while True:
            turn = [next(row, None) for row in rows]
            if not any(turn):
                return
            fresh = [one is not None and one[1].fresh for one in turn]
            if any(fresh):
                lm.reset(fresh)
            states = lm.compute(_stack([one and one[1].tokens for one in turn], max_frames, len(lm.delays)))
            for one, row in zip(turn, states, strict=True):
                if one is not None:
                    item, step = one
                    yield item, step, row[step.skip : step.tokens.shape[1]]


def _work(queue: Iterator[Item], steps_of: Callable[[Item], Iterator[Step]]) -> Iterator[tuple[Item, Step]]:
    """Take recordings off the queue that all rows share, and yield their steps."""
    for item in queue:
        for step in steps_of(item):
            yield item, step


def _stack(tokens: list[Tensor | None], width: int, num_rows: int) -> Tensor:
    """Join the rows' (rows, k) tokens to (B, rows, width); what is missing is no input at all."""
    batch = torch.full((len(tokens), num_rows, width), ZERO)
    for row, part in zip(batch, tokens, strict=True):
        if part is not None:
            row[:, : part.shape[1]] = part
    return batch

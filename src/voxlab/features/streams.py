"""The token streams that Moshi reads: text, agent and other, and how they are laid out in time.

Rows of token arrays: 0 text, 1 to K agent, K + 1 to 2 K other (K codebooks a side); `legacy` order swaps the sides.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxlab.features.base import TimedWord

ORDERS = ("moshi", "legacy")
TEXTS = ("pad", "transcript", "zero")
PAD, END_PAD, ZERO = 3, 0, -1  # ids of moshi: no text, the frame before a word, no embedding at all
_ROUNDING = 1e-6


def make_text_row(
    words: Sequence[TimedWord], tokenize: Callable[[str], list[int]], start: int, stop: int, frame_rate: float
) -> Tensor:
    """Write words into frames: a word's tokens one per frame from the frame of its start.

    A word that starts before the former one's tokens are written cuts them off; the frame before a word that follows
    silence holds END_PAD, the other frames PAD.

    Args:
        words: with times in seconds; those of no length, and those that don't start in [start, stop), are left out.
        tokenize: text of a word -> token ids, without begin and end.
        start: first frame.
        stop: frame after the last.
        frame_rate: frames per second.

    Returns:
        (stop - start,) int64 tokens.

    Source: the interleaving of moshi-finetune, which the Moshi paper (2410.00037, section 3.4.4) describes.
    """
    begins: dict[int, list[int]] = {}
    for word in sorted(words, key=lambda word: word.start):
        frame = math.floor(word.start * frame_rate + _ROUNDING)
        if word.end > word.start and start <= frame < stop:
            begins[frame - start] = tokenize(word.text)
    row = torch.full((stop - start,), PAD)
    pending: list[int] = []
    for frame in range(stop - start):
        if frame in begins:
            pending = list(begins[frame])
            if pending and frame and row[frame - 1] == PAD:
                row[frame - 1] = END_PAD
        if pending:
            row[frame] = pending.pop(0)
    return row


def stack_streams(text: Tensor, agent: Tensor, other: Tensor, order: str) -> Tensor:
    """Join text (T,) and both sides' codes (K, T) to (1 + 2 K, T) tokens, in the given order."""
    sides = [agent, other] if order == "moshi" else [other, agent]
    return torch.cat([text[None], *sides])


def start_tokens(initial: Tensor, delays: Sequence[int]) -> Tensor:
    """Return the (rows, max(delays) + 1) columns before the first tokens: nothing but initial (rows, 1) tokens."""
    return initial.expand(-1, max(delays) + 1)


def delay_tokens(history: Tensor, delays: Sequence[int]) -> Tensor:
    """Shift every row by its delay.

    Args:
        history: (rows, max(delays) + n) tokens; the first max(delays) columns are the past.
        delays: of each row, in frames.

    Returns:
        (rows, n) what the language model reads to predict the tokens after each column.
    """
    most, count = max(delays), history.shape[1] - max(delays)
    return torch.stack([row[most - delay : most - delay + count] for row, delay in zip(history, delays, strict=True)])


def language_model_input(tokens: Tensor, initial: Tensor, delays: Sequence[int]) -> Tensor:
    """Return the (rows, T) input of the language model: tokens up to frame t - 1 - delay in column t.

    Args:
        tokens: (rows, T).
        initial: (rows, 1) what is read before there are tokens.
        delays: of each row, in frames.
    """
    return delay_tokens(torch.cat([start_tokens(initial, delays), tokens[:, :-1]], dim=1), delays)

"""Decision-time alignment: row t of every feature knows the audio before t frames, so that kinds are comparable."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.features.base import ALIGNMENTS


def check_align(align: str, features: str) -> str:
    """Return `align`.

    Raises:
        UserError: the word is unknown.
    """
    if align not in ALIGNMENTS:
        raise UserError(f"features {features}: align={align!r} is unknown; allowed: {', '.join(ALIGNMENTS)}")
    return align


def delay(values: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
    """Move a chunk of frames one frame later: (k, D) and the (1, D) before it -> (k, D) and the last, for the next."""
    joined = torch.cat([previous, values])
    return joined[:-1], joined[-1:]


def split_frames(wavs: Iterable[Tensor], hop_length: int, flush: bool) -> Iterator[Tensor]:
    """Cut a running signal of (1, n) pieces into (1, hop_length) frames, each as soon as it is complete.

    Args:
        wavs: pieces of any length n >= 0.
        hop_length: samples per frame.
        flush: pad the rest at the end with zeros to a last frame; otherwise it is dropped.
    """
    pending = torch.zeros(1, 0)
    for piece in wavs:
        pending = torch.cat([pending, piece.to(pending)], dim=-1)
        while pending.shape[-1] >= hop_length:
            yield pending[:, :hop_length]
            pending = pending[:, hop_length:]
    if flush and pending.shape[-1]:
        yield nn.functional.pad(pending, (0, hop_length - pending.shape[-1]))

"""A residual codec with its first codebooks only: the same weights, less to send, a coarser sound."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from torch import Tensor

from voxlab.codecs.base import CodecInfo, Codes


@runtime_checkable
class Residual(Protocol):
    """A codec that decodes any first codebooks of its own."""

    def with_codebooks(self, count: int) -> Self:
        """Return a codec that decodes the first `count` codebooks; it shares the weights."""
        ...


Shortened = TypeVar("Shortened", bound=Any)


def shorten(codec: Shortened, count: int) -> Shortened:
    """Return a copy of a codec that keeps what it knows of itself in `_info`, for its first `count` codebooks.

    The weights must be loaded (`to`); they are shared. The copy is for decoding.

    Raises:
        ValueError: the codec has fewer codebooks.
    """
    info: CodecInfo = codec.info
    if not 1 <= count <= info.num_codebooks:
        raise ValueError(f"{info.name}: {count} codebooks; allowed are 1 to {info.num_codebooks}")
    shorter = copy.copy(codec)
    shorter._info = dataclasses.replace(info, num_codebooks=count, strides=info.strides[:count])
    return shorter


def first_codebooks(codes: Codes, count: int) -> Codes:
    """Return the first `count` codebooks of a batch of codes."""
    return dataclasses.replace(codes, codebooks=codes.codebooks[:count])


def sum_entries(quantizer: Any, rows: Sequence[Tensor]) -> Tensor:
    """Return the latents (B, C, T) of SNAC's first codebooks, (B, N_k) each; of all: the bits of its `from_codes`."""
    latents: Any = 0.0
    for layer, row in zip(quantizer.quantizers, rows, strict=False):
        latents = latents + layer.out_proj(layer.decode_code(row)).repeat_interleave(layer.stride, dim=-1)
    return latents

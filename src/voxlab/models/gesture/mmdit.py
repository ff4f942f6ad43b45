"""MMDiT: streams of tokens of different widths that keep their own weights and meet in one attention.

Source: Esser et al. 2024 (joint attention), Peebles and Xie 2023 (adaptive norms), Zhu et al. 2024 (residual streams).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxlab.models.gesture.attention import Rotation, attend, split_heads
from voxlab.models.gesture.hyper_connections import HyperConnection, expand_streams, reduce_streams


@dataclass(frozen=True)
class Tokens:
    """One stream.

    Attributes:
        values: (B, L, width).
        times: (B, L) seconds, on a clock common to all streams.
        mask: (B, L) bool, True = valid.
    """

    values: Tensor
    times: Tensor
    mask: Tensor


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """Shape of a block.

    Args:
        heads: of the attention.
        head_dim: width of a head, even.
        streams: residual streams S.
        condition_dim: width of the condition.
        dropout: share of branch values set to 0 in training.
    """

    heads: int
    head_dim: int
    streams: int
    condition_dim: int
    dropout: float


class Mmdit(nn.Module):
    """Blocks of joint attention and feed-forward layers; only one of the streams comes out.

    Every stream has its own projections, norms and feed-forward layers. A condition sets shift and scale of each
    norm and the scale of each branch. In the last block the other streams only offer keys and values: what they would
    become has no use.

    Args:
        widths: of each stream, by name.
        output: name of the stream that comes out.
        layers: number of blocks.
        settings: of each block.
    """

    def __init__(self, widths: Mapping[str, int], output: str, layers: int, settings: BlockSettings) -> None:
        super().__init__()
        self.output, self.head_dim, self.streams = output, settings.head_dim, settings.streams
        self.blocks = nn.ModuleList(
            JointBlock(widths, index, settings, {output} if index == layers - 1 else set(widths))
            for index in range(layers)
        )
        self.norm = nn.RMSNorm(widths[output])

    def forward(self, tokens: Mapping[str, Tokens], condition: Tensor) -> Tensor:
        """Return the stream that comes out, (B, L, width), normalised.

        Args:
            tokens: by name of the stream.
            condition: (B, condition_dim).
        """
        mask = torch.cat([stream.mask for stream in tokens.values()], dim=1)
        rotations = {name: Rotation(stream.times, self.head_dim) for name, stream in tokens.items()}
        exact = self.norm.weight.dtype  # of the residual, whatever autocast made of the tokens
        hidden = {name: expand_streams(stream.values.to(exact), self.streams) for name, stream in tokens.items()}
        condition = F.silu(condition)[:, None]
        for block in self.blocks:
            hidden = block(hidden, mask, rotations, condition)
        return self.norm(reduce_streams(hidden[self.output]))


class JointBlock(nn.Module):
    """One attention over the tokens of all streams, then a feed-forward layer for each.

    Args:
        widths: of each stream, by name.
        index: number of the block.
        settings: shape.
        going_on: names of the streams that go on after the attention; the others end.
    """

    def __init__(self, widths: Mapping[str, int], index: int, settings: BlockSettings, going_on: set[str]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {name: StreamBlock(width, index, settings, ends=name not in going_on) for name, width in widths.items()}
        )

    def forward(
        self, hidden: Mapping[str, Tensor], mask: Tensor, rotations: Mapping[str, Rotation], condition: Tensor
    ) -> dict[str, Tensor]:
        """Return the streams (B, L, S, width) that go on.

        Args:
            hidden: all streams, in the order of `mask`.
            mask: (B, sum of L) bool.
            rotations: of the times of each stream.
            condition: (B, 1, condition_dim).
        """
        opened = {name: part.open(hidden[name], condition, rotations[name]) for name, part in self._streams(hidden)}
        going_on = {name: part for name, part in opened.items() if part.query is not None}
        queries = torch.cat([part.query for part in going_on.values() if part.query is not None], dim=2)
        keys = torch.cat([part.key for part in opened.values()], dim=2)
        values = torch.cat([part.value for part in opened.values()], dim=2)
        lengths = [hidden[name].shape[1] for name in going_on]
        pieces = attend(queries, keys, values, mask).split(lengths, dim=1)
        parts = dict(self._streams(going_on))
        return {name: parts[name].close(opened[name], piece) for name, piece in zip(going_on, pieces, strict=True)}

    def _streams(self, names: Mapping[str, object]) -> Iterator[tuple[str, "StreamBlock"]]:
        return ((name, cast(StreamBlock, self.parts[name])) for name in names)


@dataclass(frozen=True)
class Opened:
    """A stream on its way through the attention: its heads (B, heads, L, head_dim), and what `close` needs."""

    query: Tensor | None
    key: Tensor
    value: Tensor
    mixed: Tensor
    weights: Tensor | None
    scales: tuple[Tensor, ...]


class StreamBlock(nn.Module):
    """The layers of one stream in one block.

    Args:
        width: of the stream.
        index: number of the block.
        settings: shape.
        ends: the stream only offers keys and values.
    """

    def __init__(self, width: int, index: int, settings: BlockSettings, *, ends: bool) -> None:
        super().__init__()
        self.heads, self.ends = settings.heads, ends
        inner = settings.heads * settings.head_dim
        self.modulate = nn.Linear(settings.condition_dim, (2 if ends else 6) * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.connect = HyperConnection(width, settings.streams, 2 * index, writes=not ends)
        self.project = nn.Linear(width, (2 if ends else 3) * inner, bias=False)
        self.norm_key = nn.RMSNorm(settings.head_dim)
        if ends:
            return
        self.norm_query = nn.RMSNorm(settings.head_dim)
        self.attended = nn.Linear(inner, width, bias=False)
        self.connect_forward = HyperConnection(width, settings.streams, 2 * index + 1)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(settings.dropout)

    def open(self, hidden: Tensor, condition: Tensor, rotation: Rotation) -> Opened:
        """Return what the stream (B, L, S, width) brings to the attention."""
        shift, scale, *rest = self.modulate(condition).chunk(2 if self.ends else 6, dim=-1)
        x, mixed, weights = self.connect.read(hidden)
        key, value, *query = self.project(self.norm(x) * (1 + scale) + shift).chunk(2 if self.ends else 3, dim=-1)
        key, value = split_heads(key, self.heads), split_heads(value, self.heads)
        turned = self._turn(self.norm_query, split_heads(query[0], self.heads), rotation) if query else None
        return Opened(turned, self._turn(self.norm_key, key, rotation), value, mixed, weights, tuple(rest))

    def _turn(self, norm: nn.Module, x: Tensor, rotation: Rotation) -> Tensor:
        """Normalise and turn queries or keys, in float32 whatever autocast says."""
        return rotation(norm(x.float())).to(x.dtype)

    def close(self, opened: Opened, attended: Tensor) -> Tensor:
        """Return the stream (B, L, S, width) after the attention gave (B, L, heads * head_dim)."""
        after_attention, shift, scale, after_forward = opened.scales
        branch = self.dropout(self.attended(attended)) * (1 + after_attention)
        hidden = self.connect.write(opened.mixed, opened.weights, branch)
        x, mixed, weights = self.connect_forward.read(hidden)
        branch = self.dropout(self.feed_forward(self.norm(x) * (1 + scale) + shift)) * (1 + after_forward)
        return self.connect_forward.write(mixed, weights, branch)

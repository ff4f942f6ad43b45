"""Attention over tokens that have a time in seconds: rotary positions common to all streams, and cross attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TOP_RATE = 30.0  # radians a second of the fastest pair: one radian a frame at 30 frames a second
_BASE = 1000.0  # ratio of the fastest to the slowest pair, about: slow ones turn once in minutes


class Rotation:
    """Cosines and sines that turn pairs of query and key dimensions by an angle proportional to the time.

    Products of turned queries and keys depend on the difference of their times only. Source: Su et al. 2021 (RoPE).

    Args:
        times: (B, L) seconds.
        head_dim: width of a head, even.
    """

    def __init__(self, times: Tensor, head_dim: int) -> None:
        pairs = torch.arange(head_dim // 2, device=times.device, dtype=torch.float32)
        angles = times.float()[:, None, :, None] * (_TOP_RATE * _BASE ** (-2 * pairs / head_dim))
        self.cos, self.sin = angles.cos(), angles.sin()

    def __call__(self, x: Tensor) -> Tensor:
        """Turn queries or keys (B, heads, L, head_dim); same shape and type."""
        first, second = x.float().chunk(2, dim=-1)
        turned = torch.cat([first * self.cos - second * self.sin, first * self.sin + second * self.cos], dim=-1)
        return turned.to(x.dtype)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return (B, L, heads * head_dim) as (B, heads, L, head_dim)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Undo `split_heads`."""
    return x.transpose(1, 2).flatten(2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return softmax attention.

    Args:
        queries: (B, heads, L, head_dim).
        keys: (B, heads, M, head_dim).
        values: (B, heads, M, head_dim).
        mask: (B, M) bool, True = valid; at least one a row.

    Returns:
        (B, L, heads * head_dim).
    """
    return merge_heads(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None]))


class CrossAttention(nn.Module):
    """Multi-head attention from one sequence to another on the same clock, both normalised first.

    Args:
        dim: width of both sequences and of the result.
        heads: number of heads, a divisor of `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_other = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_query = nn.Linear(dim, dim, bias=False)
        self.to_key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, other: Tensor, mask: Tensor, rotation: Rotation) -> Tensor:
        """Return what `x` (B, L, dim) takes from `other` (B, L, dim), which has the same times.

        Args:
            x: the asking sequence.
            other: the answering one.
            mask: (B, L) bool, True = valid frames of `other`.
            rotation: of the times of both.
        """
        query = split_heads(self.to_query(self.norm(x)), self.heads)
        key, value = self.to_key_value(self.norm_other(other)).chunk(2, dim=-1)
        key, value = split_heads(key, self.heads), split_heads(value, self.heads)
        return self.output(attend(rotation(query), rotation(key), value, mask))

"""Fusion of two feature streams of the same audio: attention both ways, then a gate between the two."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxlab.errors import UserError, check_types
from voxlab.models.gesture.attention import CrossAttention, Rotation


@dataclass(frozen=True, kw_only=True)
class FusionSettings:
    """Shape of a `Fusion`.

    Args:
        heads: of each attention, a divisor of the width.
        layers: rounds of attention both ways, 0 or more.
        dropout: 0 to below 1.

    Raises:
        UserError: a value is out of range.
    """

    heads: int = 8
    layers: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_types(self, "model.fusion.")
        ranges = {"heads": self.heads >= 1, "layers": self.layers >= 0, "dropout": 0 <= self.dropout < 1}
        for name in (name for name, fits in ranges.items() if not fits):
            raise UserError(f"model.fusion.{name}={getattr(self, name)} is out of range.")


class Fusion(nn.Module):
    """Map speech features, and acoustic ones where there are any, to one sequence of `dim` numbers a frame.

    Both are projected; each layer updates both from the same state of the other; a gate mixes the results. With one
    stream only, what is left is the projection and the last residual layer.

    Args:
        feature_dim: width of the speech features.
        acoustic_dim: width of the acoustic features; None: there are none.
        dim: width of the result.
        settings: heads, layers, dropout.
    """

    def __init__(self, feature_dim: int, acoustic_dim: int | None, dim: int, settings: FusionSettings) -> None:
        super().__init__()
        self.head_dim = dim // settings.heads
        self.project = nn.Sequential(nn.Linear(feature_dim, dim), nn.LayerNorm(dim))
        self.acoustic = None
        if acoustic_dim is not None:
            self.acoustic = nn.Sequential(nn.Linear(acoustic_dim, dim), nn.LayerNorm(dim))
            self.rounds = nn.ModuleList(_Exchange(dim, settings.heads) for _ in range(settings.layers))
            self.gate = nn.Linear(2 * dim, dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, features: Tensor, acoustic: Tensor | None, mask: Tensor, times: Tensor) -> Tensor:
        """Return the fused frames (B, T, dim).

        Args:
            features: (B, T, feature_dim), normalised.
            acoustic: (B, T, acoustic_dim), normalised; None for a fusion without them.
            mask: (B, T) bool, True = valid.
            times: (B, T) seconds.

        Raises:
            ValueError: acoustic features are missing, or there are some and the network has no place for them.
        """
        if (acoustic is None) != (self.acoustic is None):
            raise ValueError(f"acoustic features: given {acoustic is not None}, expected {self.acoustic is not None}")
        fused = self.project(features)
        if self.acoustic is not None:
            fused = self._mix(fused, self.acoustic(acoustic), mask, times)
        return fused + self.dropout(self.output(fused))

    def _mix(self, speech: Tensor, sound: Tensor, mask: Tensor, times: Tensor) -> Tensor:
        rotation = Rotation(times, self.head_dim)
        for exchange in self.rounds:
            to_speech, to_sound = exchange(speech, sound, mask, rotation)
            speech, sound = speech + self.dropout(to_speech), sound + self.dropout(to_sound)
        gate = torch.sigmoid(self.gate(torch.cat([speech, sound], dim=-1)))
        return gate * speech + (1 - gate) * sound


class _Exchange(nn.Module):
    """One attention for each direction, with weights of its own."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.to_speech, self.to_sound = CrossAttention(dim, heads), CrossAttention(dim, heads)

    def forward(self, speech: Tensor, sound: Tensor, mask: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        return self.to_speech(speech, sound, mask, rotation), self.to_sound(sound, speech, mask, rotation)

"""The networks behind the normaliser of `laughter.LaughterModel`: features and a state in, logits and a state out."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = Any  # what a network remembers of the frames before; None at the start of a recording


class Head(nn.Module):
    """Base of the networks behind the normaliser.

    Attributes:
        output: the last layer, one number.
    """

    output: nn.Linear

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map normalised features (B, L, dim) and a state to logits (B, L) and the next state."""
        raise NotImplementedError


class FrameHead(Head):
    """Looks at each frame by itself.

    Args:
        body: layers before the output.
        width: of what they return.
    """

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.output = body, nn.Linear(width, 1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return logits; there is no state."""
        return self.output(self.body(x)).squeeze(-1), None


class TcnHead(Head):
    """Input layer, residual blocks, output layer; the state holds the last inputs of each convolution.

    Args:
        dim: of the features.
        hidden: width.
        layers: number of blocks, with dilations 1, 2, 4, ...
        kernel: frames of each convolution.
        dropout: share of values set to 0 in training.
    """

    def __init__(self, dim: int, hidden: int, layers: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.input = nn.Linear(dim, hidden)
        self.blocks = nn.ModuleList(CausalBlock(hidden, kernel, 2**layer, dropout) for layer in range(layers))
        self.output = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return logits and the last inputs."""
        x, after = self.input(x), []
        for block, past in zip(self.blocks, state or [None] * len(self.blocks), strict=True):
            x, past = block(x, past)
            after.append(past)
        return self.output(x).squeeze(-1), after


class CausalBlock(nn.Module):
    """x + dropout(GELU(convolution of layer-normed x)); the past of a recording that begins is 0.

    Args:
        hidden: width.
        kernel: frames that are seen.
        dilation: frames from one of them to the next.
        dropout: share of values set to 0 in training.
    """

    def __init__(self, hidden: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation
        self.norm = nn.LayerNorm(hidden)
        self.conv = nn.Conv1d(hidden, hidden, kernel, dilation=dilation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map (B, L, hidden) and the normed inputs before, (B, reach, hidden), to output and next past."""
        normed = self.norm(x)
        joined = torch.cat([normed.new_zeros(len(x), self.reach, x.shape[2]) if past is None else past, normed], 1)
        convolved = self.conv(joined.transpose(1, 2)).transpose(1, 2)
        return x + self.dropout(F.gelu(convolved)), joined[:, -self.reach :]


class GruHead(Head):
    """Gated recurrent unit, output layer; the state is the unit's.

    Args:
        dim: of the features.
        hidden: width.
        layers: number of stacked units.
    """

    def __init__(self, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return logits and the unit's state."""
        x, state = self.gru(x, state)
        return self.output(x).squeeze(-1), state

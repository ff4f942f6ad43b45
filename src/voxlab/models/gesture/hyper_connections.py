"""Residual streams: several copies of the residual that each branch reads, writes and mixes with learned weights.

Source: Zhu et al. 2024, "Hyper-Connections" (dynamic variant).
"""

import torch
from torch import Tensor, nn

_SCALE = 0.01  # of the dynamic part


class HyperConnection(nn.Module):
    """How one branch f of a network reads S residual streams and writes to them.

    The branch sees sum_s a_s h_s; afterwards h'_s = sum_t m_ts h_t + b_s f. The weights a, m and b are a static part
    plus 0.01 tanh of a linear map of the normalised streams, which starts at zero: at first the branch reads one
    stream, writes to all, and nothing is mixed. One stream is the plain residual h + f(h).

    Args:
        dim: width of a stream.
        streams: S, 1 or more.
        index: number of the branch in its network; it starts by reading stream `index` mod S.
        writes: False: the branch only reads; what the streams become has no use.
    """

    def __init__(self, dim: int, streams: int, index: int, *, writes: bool = True) -> None:
        super().__init__()
        self.streams, self.writes = streams, writes
        if streams == 1:
            return
        read = torch.eye(streams)[:, [index % streams]]
        self.norm = nn.RMSNorm(dim)
        self.static_in = nn.Parameter(torch.cat([read, torch.eye(streams)], dim=1))
        self.dynamic_in = nn.Parameter(torch.zeros(dim, streams + 1))
        if writes:
            self.static_out = nn.Parameter(torch.ones(streams))
            self.dynamic_out = nn.Parameter(torch.zeros(dim))

    def read(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Split the streams into what the branch sees and what `write` needs.

        Args:
            hidden: (B, L, S, dim).

        Returns:
            the input of the branch (B, L, dim), the mixed streams (B, L, S, dim), and the weights (B, L, S) with
            which they take the branch's output; None: 1.
        """
        if self.streams == 1:
            return hidden[:, :, 0], hidden, None
        # The residual keeps its precision: under autocast the product would round it.
        with torch.autocast(hidden.device.type, enabled=False):
            normed = self.norm(hidden)
            weights_in = self.static_in + _SCALE * torch.tanh(normed @ self.dynamic_in)
            mixed = weights_in.transpose(2, 3) @ hidden
            if not self.writes:
                return mixed[:, :, 0], mixed[:, :, 1:], None
            weights_out = self.static_out + _SCALE * torch.tanh(normed @ self.dynamic_out)
        return mixed[:, :, 0], mixed[:, :, 1:], weights_out

    def write(self, mixed: Tensor, weights: Tensor | None, output: Tensor) -> Tensor:
        """Return the streams (B, L, S, dim) after the branch gave `output` (B, L, dim)."""
        spread = output[:, :, None]
        return mixed + (spread if weights is None else spread * weights[..., None])


def expand_streams(x: Tensor, streams: int) -> Tensor:
    """Return (B, L, dim) as (B, L, S, dim), all streams alike."""
    return x[:, :, None].repeat(1, 1, streams, 1)


def reduce_streams(hidden: Tensor) -> Tensor:
    """Return the sum of the streams, (B, L, dim)."""
    return hidden.sum(dim=2)

"""Fast parts of EnCodec's causal encoder: its convolutions as matrix products over chunks (CPU), a ragged LSTM.

Same weights and sums as the modules (to 1e-7), and faster (benchmarks/encode.py): chunks stay in the cache, nothing is
padded by copies of whole activations, a product over (time, channels) rows runs near the speed limit where a
convolution does not, and two outputs of a downsampling take three products instead of four.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FINE_STAGES = 2  # long and narrow activations: 1.3 MB in a chunk of their own
FINE_FRAMES, COARSE_FRAMES = 32, 192  # at least 2, for the reflected beginning
_LOG2_E = math.log2(math.e)
_EDGE, _BLOCK = 7, [3, 1, 1]  # kernel sizes: first convolution; of a residual block, its shortcut last


class CausalFront:
    """The published causal encoder without LSTM and last convolution, for one signal at a time.

    Args:
        convs: its convolutions in the order of the modules, weight norm folded away.
        ratios: strides of the downsampling convolutions, first to last.
    """

    def __init__(self, convs: Sequence[nn.Conv1d], ratios: Sequence[int]) -> None:
        self.first = _taps(convs[0])
        self.stages = [
            (*map(_taps, convs[at : at + len(_BLOCK)]), _halves(convs[at + len(_BLOCK)]))
            for at in range(1, len(convs) - 1, len(_BLOCK) + 1)
        ]
        self.ratios = list(ratios)
        self.hop_length = int(torch.tensor(self.ratios).prod())

    def __call__(self, wav: Tensor) -> Tensor:
        """Run (T,) samples, at least 8 frames of them, through the convolutions; returns (C, ceil(T / hop_length))."""
        fine, coarse, rows = _Carry(), _Carry(), []
        for chunk in wav[:, None].split(COARSE_FRAMES * self.hop_length):
            parts = [self._begin(part, fine) for part in chunk.split(FINE_FRAMES * self.hop_length)]
            coarse.rewind()
            rows.append(self._run(torch.cat(parts), coarse, slice(FINE_STAGES, None)))
        return torch.cat(rows).T

    def _begin(self, x: Tensor, carry: "_Carry") -> Tensor:
        """Run (n, 1) samples that follow those before through the first convolution and the fine stages.

        n is a whole number of frames except at the end.
        """
        carry.rewind()
        weights, bias = self.first
        rows = torch.cat([carry.swap(x, _EDGE - 1), x])
        x = torch.addmm(bias, rows[:, 0].unfold(0, _EDGE, 1), weights[:, 0])
        return self._run(x, carry, slice(FINE_STAGES))

    def _run(self, x: Tensor, carry: "_Carry", stages: slice) -> Tensor:
        """Run rows (n, C) through some stages, each a residual block and a downsampling."""
        for (conv, point, shortcut, down), ratio in zip(self.stages[stages], self.ratios[stages], strict=True):
            out = torch.addmm(shortcut[1] + point[1], x, shortcut[0][0])
            _elu_(x)
            hidden = _convolve(x, carry.swap(x, len(conv[0]) - 1), *conv)
            out.addmm_(_elu_(hidden), point[0][0])
            _elu_(out)
            x = _downsample(out, carry.swap(out, ratio), *down)
        return x


class _Carry:
    """The last rows that each convolution has seen, for the next chunk."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.at = 0

    def rewind(self) -> None:
        """Begin a chunk with the first convolution."""
        self.at = 0

    def swap(self, x: Tensor, count: int) -> Tensor:
        """Return the `count` rows before x (n, C), a signal's beginning reflected, and keep the last ones of x."""
        if self.at == len(self.rows):
            self.rows.append(x[1 : count + 1].flip(0))
        before = self.rows[self.at]
        self.rows[self.at] = torch.cat([before, x[-count:]])[-count:]
        self.at += 1
        return before


def _elu_(x: Tensor) -> Tensor:
    """Apply ELU in place, to 1e-7: by powers of two it takes half the time of torch's own expm1."""
    below = (x * _LOG2_E).clamp_(max=0).exp2_().sub_(1)
    return torch.maximum(x, below, out=x)


def _convolve(x: Tensor, before: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Apply a kernel of `weights` (taps, in, out) to x (n, C), which follows the taps - 1 rows `before`."""
    taps = len(weights)
    out = torch.addmm(bias, x, weights[-1])
    for lag in range(1, taps):
        weight = weights[taps - 1 - lag]
        out[lag:].addmm_(x[:-lag], weight)
        out[:lag].addmm_(before[-lag:][: len(x)], weight)
    return out


def _downsample(x: Tensor, before: Tensor, first: Tensor, second: Tensor, both: Tensor, bias: Tensor) -> Tensor:
    """Apply a kernel of 2 r taps with stride r to x (n, C) after its r rows `before`: products of blocks of r rows.

    Where n is no multiple of r the end is reflected. Of blocks p, a, b the outputs are p first + a second and
    a first + b second, that is, with a (first + second) for both: three products, as in Winograd's F(2, 2).
    """
    ratio = len(before)
    missing = -len(x) % ratio
    if missing:
        rows = torch.cat([before, x])
        x = torch.cat([x, rows[-missing - 1 : -1].flip(0)])
    count = len(x) // ratio
    if count % 2:
        x = torch.cat([x, torch.zeros_like(before)])  # completes the last pair; its output is dropped
    even, odd = x.view(-1, 2, ratio * x.shape[1]).unbind(1)
    out = torch.addmm(bias, even, both).repeat_interleave(2, 0)
    out[::2].addmm_(torch.cat([before.reshape(1, -1), odd[:-1]]).sub_(even), first)
    out[1::2].addmm_(odd - even, second)
    return out[:count]


def _halves(conv: nn.Conv1d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return both halves of a downsampling kernel as (r * channels in, channels out), their sum, and the bias."""
    weights, bias = _taps(conv)
    first, second = weights.reshape(2, -1, weights.shape[-1])
    return first, second, first + second, bias


def _taps(conv: nn.Conv1d) -> tuple[Tensor, Tensor]:
    """Return the kernel as (taps, channels in, channels out), and the bias."""
    assert conv.bias is not None
    return conv.weight.permute(2, 1, 0).contiguous(), conv.bias


def run_lstm(lstm: nn.LSTM, rows: Sequence[Tensor]) -> Tensor:
    """Run items of mixed lengths through a residual LSTM together: a batch of all, then of those that go on, and so on.

    Args:
        lstm: of C inputs and outputs, time first.
        rows: (C, N_i) each.

    Returns:
        (B, C, N), zero past each item's end.
    """
    lengths = [row.shape[-1] for row in rows]
    order = sorted(range(len(rows)), key=lambda item: -lengths[item])
    x = nn.utils.rnn.pad_sequence([rows[item].T for item in order])
    parts, state, start = [], None, 0
    for stop in sorted(set(lengths)):
        active = sum(length >= stop for length in lengths)
        state = None if state is None else tuple(part[:, :active].contiguous() for part in state)
        step = x[start:stop, :active].contiguous()
        out, state = lstm(step, state)
        parts.append(F.pad(out + step, (0, 0, 0, len(rows) - active)))
        start = stop
    places = torch.tensor(order, device=x.device).argsort()
    return torch.cat(parts).permute(1, 2, 0)[places]


def build_front(encoder: nn.Module, config: Any) -> CausalFront | None:
    """Return the fast front of a transformers encoder on the CPU, or None where it isn't the published causal one."""
    convs = [module for module in encoder.modules() if isinstance(module, nn.Conv1d)]
    ratios = list(config.upsampling_ratios)[::-1]
    kernels = [_EDGE] + [size for ratio in ratios for size in (*_BLOCK, 2 * ratio)]
    known = [conv.kernel_size[0] for conv in convs[:-1]] == kernels and all(conv.dilation == (1,) for conv in convs)
    causal = config.use_causal_conv and config.pad_mode == "reflect" and config.norm_type == "weight_norm"
    return CausalFront(convs, ratios) if known and causal else None

"""Networks that tell real audio from decoded audio, for adversarial training: on STFTs, on periods, on bands.

Each takes prepared audio (B, 1, N) and returns scores (B, 1, ...) and its feature maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.models.tokenizer.snake import add_weight_norm

KINDS = ("msstft", "mpd", "mrd")
PEAK = 0.8


@dataclass(frozen=True)
class Judgement:
    """What a set of discriminators says about audio.

    Attributes:
        scores: one tensor per discriminator, near 1 for real and 0 for decoded.
        features: the activations of every hidden layer of every discriminator.
    """

    scores: list[Tensor]
    features: list[Tensor]

    def split(self) -> "tuple[Judgement, Judgement]":
        """Part a judgement of two stacked batches into the first and the second half."""
        pairs = [[part.chunk(2) for part in parts] for parts in (self.scores, self.features)]
        first, second = ([[pair[half] for pair in part] for part in pairs] for half in (0, 1))
        return Judgement(*first), Judgement(*second)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorArchitecture:
    """Which discriminators judge, and their shapes.

    Attributes:
        kinds: any of "msstft" (cheap), "mpd" and "mrd" (together: the best final quality, 41 M parameters).
        windows: STFT windows of msstft and mrd in samples; the hop is a quarter.
        periods: of mpd, in samples.
        channels: of msstft and mrd.
        period_channels: of the layers of mpd.

    Raises:
        UserError: no kind, or one that is unknown.
    """

    kinds: tuple[str, ...] = ("msstft",)
    windows: tuple[int, ...] = (2048, 1024, 512)
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    channels: int = 32
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)

    def __post_init__(self) -> None:
        for name in ("kinds", "windows", "periods", "period_channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise UserError(f"discriminator kinds {list(self.kinds)}: allowed are one or more of {', '.join(KINDS)}")

    def build(self) -> "Discriminators":
        """Make the networks, with fresh weights."""
        parts: list[nn.Module] = []
        for kind in self.kinds:
            if kind == "msstft":
                parts += [StftDiscriminator(window, self.channels) for window in self.windows]
            elif kind == "mpd":
                parts += [PeriodDiscriminator(period, self.period_channels) for period in self.periods]
            else:
                parts += [BandDiscriminator(window, self.channels) for window in self.windows]
        return Discriminators(parts)


class Discriminators(nn.Module):
    """Several discriminators that judge the same audio, without its offset and at the same peak."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, wav: Tensor) -> Judgement:
        """Judge wav (B, 1, N); N at least the longest window."""
        wav = wav - wav.mean(dim=-1, keepdim=True)
        wav = PEAK * wav / (wav.abs().amax(dim=-1, keepdim=True) + 1e-9)
        scores, features = zip(*(part(wav) for part in self.parts), strict=True)
        return Judgement(list(scores), [layer for layers in features for layer in layers])


class StftDiscriminator(nn.Module):
    """2-D convolutions on the real and imaginary part of one STFT; time dilations 1, 2, 4, frequency strides 2.

    Args:
        window: samples of the Hann window; the hop is a quarter.
        channels: of every layer.

    Source: Défossez et al. 2022, "High Fidelity Neural Audio Compression" (EnCodec), section 3.4.
    """

    def __init__(self, window: int, channels: int = 32) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        layers = [nn.Conv2d(2, channels, (3, 9), padding=(1, 4))]
        layers += [
            nn.Conv2d(channels, channels, (3, 9), (1, 2), (dilation, 4), (dilation, 1)) for dilation in (1, 2, 4)
        ]
        layers += [nn.Conv2d(channels, channels, 3, padding=1)]
        self.layers = nn.ModuleList(layers)
        self.last = nn.Conv2d(channels, 1, 3, padding=1)
        add_weight_norm(self)

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores (B, 1, F, bins) and five feature maps of wav (B, 1, N)."""
        # Divided by the window's energy, so that every window size gives numbers of the same scale.
        window = self.get_buffer("window")
        x = _spectrum(wav, window, center=False) / window.square().sum().sqrt()
        features = _run(self.layers, x, slope=0.2)
        return self.last(features[-1]), features


class PeriodDiscriminator(nn.Module):
    """Convolutions along every p-th sample of the audio.

    Args:
        period: p in samples.
        channels: of the layers; all but the last reduce the length by 3.

    Source: Kong et al. 2020, "HiFi-GAN", section 2.3.
    """

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        sizes = [1, *channels]
        strides = [3] * (len(channels) - 1) + [1]
        self.layers = nn.ModuleList(
            nn.Conv2d(size, after, (5, 1), (stride, 1), (2, 0))
            for size, after, stride in zip(sizes, channels, strides, strict=False)
        )
        self.last = nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0))
        add_weight_norm(self)

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores (B, 1, T, period) and the feature maps of wav (B, 1, N)."""
        wav = nn.functional.pad(wav, (0, -wav.shape[-1] % self.period), mode="reflect")
        features = _run(self.layers, wav.unflatten(-1, (-1, self.period)), slope=0.1)
        return self.last(features[-1]), features


class BandDiscriminator(nn.Module):
    """2-D convolutions on five frequency bands of one complex STFT, each with weights of its own.

    Args:
        window: samples of the Hann window; the hop is a quarter.
        channels: of every layer.

    Source: Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), section 3.3.
    """

    edges = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # shares of the STFT's bins

    def __init__(self, window: int, channels: int = 32) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.bounds = [int(edge * (window // 2 + 1)) for edge in self.edges]
        self.bands = nn.ModuleList(self._band(channels) for _ in self.edges[1:])
        self.last = nn.Conv2d(channels, 1, 3, padding=1)
        add_weight_norm(self)

    @staticmethod
    def _band(channels: int) -> nn.ModuleList:
        layers = [nn.Conv2d(2, channels, (3, 9), padding=(1, 4))]
        layers += [nn.Conv2d(channels, channels, (3, 9), (1, 2), (1, 4)) for _ in range(3)]
        return nn.ModuleList([*layers, nn.Conv2d(channels, channels, 3, padding=1)])

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores (B, 1, F, bins) and 25 feature maps of wav (B, 1, N)."""
        spectrum = _spectrum(wav, self.get_buffer("window"), center=True)
        spans = zip(self.bounds, self.bounds[1:], self.bands, strict=False)
        bands = [_run(band, spectrum[..., low:high], slope=0.1) for low, high, band in spans]
        joined = torch.cat([features[-1] for features in bands], dim=-1)
        return self.last(joined), [layer for features in bands for layer in features]


def _spectrum(wav: Tensor, window: Tensor, center: bool) -> Tensor:
    """Return the STFT of wav (B, 1, N) as (B, 2, F, bins): real and imaginary part; always in the window's format."""
    size = len(window)
    with torch.autocast(wav.device.type, enabled=False):
        wav = wav[:, 0].to(window.dtype)
        spectrum = torch.stft(wav, size, size // 4, window=window, center=center, return_complex=True)
    return torch.view_as_real(spectrum).permute(0, 3, 2, 1)


def _run(layers: nn.Module, x: Tensor, slope: float) -> list[Tensor]:
    """Return the activation after each layer."""
    features = []
    for layer in layers.children():
        x = nn.functional.leaky_relu(layer(x), slope)
        features.append(x)
    return features

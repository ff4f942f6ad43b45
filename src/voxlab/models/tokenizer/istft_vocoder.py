"""A vocoder with an inverse STFT at its end: log-mel to audio, trained by task=train_tokenizer codec=vocoder.

The network has the shape of Vocos and loads its published weights too.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from voxlab.errors import UserError, check_types
from voxlab.mel import LogMel, Mel
from voxlab.models.tokenizer.output import Output
from voxlab.models.tokenizer.vocoders import repeat_last_frame

LARGEST_LOG_MAGNITUDE = math.log(100)


@dataclass(frozen=True, kw_only=True)
class VocoderArchitecture:
    """Shape of an ISTFT vocoder; plain values only, so that a file can hold it.

    Attributes:
        mel: what it takes; its n_fft and hop_length are those of the inverse STFT too.
        dim: channels.
        hidden: channels inside each block.
        layers: blocks.

    Raises:
        UserError: a size below 1, or the mel is not centred.
    """

    family: ClassVar[str] = "vocoder"
    mel: Mel = field(default_factory=Mel)
    dim: int = 512
    hidden: int = 1536
    layers: int = 8

    def __post_init__(self) -> None:
        check_types(self, "codec.architecture.")
        for name in ("dim", "hidden", "layers"):
            if getattr(self, name) < 1:
                raise UserError(f"codec.architecture.{name}={getattr(self, name)}: must be above 0")
        if not self.mel.center:
            raise UserError("codec.architecture.mel.center=false does not fit an ISTFT vocoder; set it to true")

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.mel.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples per mel frame."""
        return self.mel.hop_length

    def build(self) -> "IstftVocoder":
        """Make the network, with fresh weights."""
        return IstftVocoder(self)


class IstftVocoder(nn.Module):
    """Convolution, ConvNeXt blocks, magnitude and phase, inverse STFT; parameter names are those of Vocos.

    Source: Siuzdak 2023, "Vocos: closing the gap between time-domain and Fourier-based neural vocoders".
    """

    def __init__(self, architecture: VocoderArchitecture) -> None:
        super().__init__()
        mel, dim = architecture.mel, architecture.dim
        self.n_fft, self.hop_length = mel.n_fft, mel.hop_length
        self.log_mel = LogMel(mel)
        self.backbone = Backbone(mel.num_bins, dim, architecture.hidden, architecture.layers)
        self.head = IstftHead(dim, mel.n_fft, mel.hop_length)

    def forward(self, wav: Tensor, lengths: Tensor, num_codebooks: Tensor | None = None, seed: int = 0) -> Output:
        """Resynthesize audio from its own log-mel.

        Args:
            wav: (B, 1, N) float32.
            lengths: (B,) valid samples.
            num_codebooks: unused; the networks of the family share one signature.
            seed: unused.

        Returns:
            target and output (B, 1, M) and mask (B, M), M = N rounded up to whole hops.
        """
        wav = nn.functional.pad(wav, (0, -wav.shape[-1] % self.hop_length))
        mask = torch.arange(wav.shape[-1], device=wav.device) < lengths.to(wav.device)[:, None]
        wav = wav * mask[:, None]
        output = self.synthesize(self.log_mel(wav)[..., :-1])
        return Output(target=wav, output=output * mask[:, None], mask=mask)

    def synthesize(self, log_mel: Tensor) -> Tensor:
        """Turn log-mels (B, num_bins, F) into wav (B, 1, F * hop_length)."""
        return self.head(self.backbone(repeat_last_frame(log_mel)))[:, None]


class Backbone(nn.Module):
    """(B, bins, F) to (B, F, dim): everything at the mel's frame rate."""

    def __init__(self, bins: int, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(bins, dim, kernel_size=7, padding=3)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.convnext = nn.ModuleList(ConvNeXtBlock(dim, hidden, 1 / layers) for _ in range(layers))
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """Turn mel frames into features."""
        x = self.norm(self.embed(x).transpose(1, 2))
        for block in self.convnext:
            x = block(x)
        return self.final_layer_norm(x)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then two linear layers per frame, around a skip; (B, F, dim) to the same.

    Source: Liu et al. 2022, "A ConvNet for the 2020s", in one dimension.
    """

    def __init__(self, dim: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, hidden)
        self.pwconv2 = nn.Linear(hidden, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        y = self.norm(self.dwconv(x.transpose(1, 2)).transpose(1, 2))
        return x + self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(y)))


class IstftHead(nn.Module):
    """(B, F, dim) to audio (B, (F - 1) * hop_length): log-magnitude and phase of every bin, then the inverse STFT."""

    def __init__(self, dim: int, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.out = nn.Linear(dim, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn features into audio."""
        magnitude, phase = self.out(x).float().transpose(1, 2).chunk(2, dim=1)
        magnitude = magnitude.clamp_max(LARGEST_LOG_MAGNITUDE).exp()  # clamped first: no infinity in the gradient
        spectrum = torch.polar(magnitude, phase)
        return torch.istft(spectrum, self.n_fft, self.hop_length, self.n_fft, self.window, center=True)

"""The mel-domain codec: log-mel, convolutional encoder, residual quantizer, decoder back to log-mel."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from voxlab.errors import UserError, check_types
from voxlab.mel import LogMel, Mel
from voxlab.models.tokenizer.masked_layers import (
    ChannelNorm,
    MaskedGroupNorm,
    MaskedLayer,
    downsampling_conv,
    upsampling_conv,
)
from voxlab.models.tokenizer.masks import length_mask
from voxlab.models.tokenizer.output import Output
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.rates import Rates

_GROUPS = 8
_LATENT_KERNEL = 3


@dataclass(frozen=True, kw_only=True)
class MelArchitecture(Rates):
    """Shape of a mel-domain codec; plain values only, so that a file can hold it.

    Attributes:
        mel: the mel that is coded; the vocoder must have the same.
        hidden: channels of the encoder and decoder, a multiple of 8.
        down: stride of each encoder layer in mel frames; the product is the number of mel frames per code.
        kernel: width of the convolutions, odd.
        norm: "group" (statistics over an item's time and channels) or "channel" (per frame, for chunked use).
        quantizer: the residual quantizer.

    Raises:
        UserError: a value that is not allowed.
    """

    family: ClassVar[str] = "mel"
    mel: Mel = field(default_factory=Mel)
    hidden: int = 512
    down: tuple[int, ...] = (1, 2, 2, 2)
    kernel: int = 7
    norm: str = "group"
    quantizer: QuantizerSettings = field(default_factory=QuantizerSettings)

    def __post_init__(self) -> None:
        check_types(self, "codec.architecture.")
        object.__setattr__(self, "down", tuple(self.down))
        prefix = "codec.architecture"
        if not self.down or min(self.down) < 1 or max(self.down) > self.kernel:
            raise UserError(f"{prefix}.down={list(self.down)}: each must be from 1 to kernel ({self.kernel})")
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise UserError(f"{prefix}.kernel={self.kernel}: must be odd and at least 3")
        if self.hidden < 1 or self.hidden % _GROUPS:
            raise UserError(f"{prefix}.hidden={self.hidden}: must be a multiple of {_GROUPS}")
        if self.norm not in ("group", "channel"):
            raise UserError(f"{prefix}.norm={self.norm!r} is unknown; allowed: group, channel")

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.mel.sample_rate

    @property
    def frames_per_code(self) -> int:
        """Mel frames per code frame."""
        return math.prod(self.down)

    @property
    def hop_length(self) -> int:
        """Samples per code frame."""
        return self.mel.hop_length * self.frames_per_code

    @property
    def context_frames(self) -> tuple[int, int] | None:
        """Code frames before and after a chunk that its codes, or its mel, depend on at most; None: on all of them."""
        if self.norm == "group":
            return None
        side, steps = self.kernel // 2, 1
        encoder, decoder = -(-self.mel.n_fft // (2 * self.mel.hop_length)) + 1, side
        for stride in self.down:
            encoder += side * steps
            steps *= stride
            decoder += max(side, 2 * stride) * steps // stride + steps
        frames = -(-max(encoder + steps, decoder) // steps)
        return frames, frames

    def build(self) -> "MelCodec":
        """Make the network with fresh weights."""
        return MelCodec(self)


class MelCodec(nn.Module):
    """Network of a `MelArchitecture`: audio to codes, codes to log-mel.

    Audio of N samples counts as followed by zeros, to T = ceil(N / hop_length) code frames and as far beyond as the
    last window reaches. So an item alone, where a centred spectrogram would reflect its end, has the mel that it has
    in a batch, where others go on; only the start is reflected. The mel frames past the last code frame are dropped.

    Source: the architecture of Testing-S2S, with lengths that come out even and norms that see no padding.
    """

    mel_mean: Tensor
    mel_std: Tensor

    def __init__(self, architecture: MelArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        width, bins, kernel = architecture.hidden, architecture.mel.num_bins, architecture.kernel
        self.log_mel = LogMel(architecture.mel)
        self.register_buffer("mel_mean", torch.tensor(0.0))
        self.register_buffer("mel_std", torch.tensor(1.0))
        self.encoder = nn.ModuleList()
        for index, stride in enumerate(architecture.down):
            self.encoder.append(self._layer(downsampling_conv(width if index else bins, width, kernel, stride)))
        self.to_latents = downsampling_conv(width, width, _LATENT_KERNEL, 1)
        self.quantizer = architecture.quantizer.build(width)
        # The last convolution mirrors a first one that keeps the rate.
        self.up = tuple(reversed(architecture.down[1:] if architecture.down[0] == 1 else architecture.down))
        self.decoder = nn.ModuleList()
        for stride in self.up:
            conv = downsampling_conv(width, width, kernel, 1) if stride == 1 else upsampling_conv(width, stride)
            self.decoder.append(self._layer(conv))
        self.to_mel = downsampling_conv(width, bins, kernel, 1)

    def _layer(self, conv: nn.Conv1d | nn.ConvTranspose1d) -> MaskedLayer:
        width = self.architecture.hidden
        norm = ChannelNorm(width) if self.architecture.norm == "channel" else MaskedGroupNorm(_GROUPS, width)
        return MaskedLayer(conv, norm)

    def standardize(self, mean: float, std: float) -> None:
        """Set the mean and standard deviation of the log-mel, which the network sees as 0 and 1.

        Raises:
            ValueError: they aren't finite, or std is not above 0 (all of the audio is silent).
        """
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(f"log-mel of mean {mean} and standard deviation {std}; needs finite numbers, std above 0")
        self.mel_mean.fill_(mean)
        self.mel_std.fill_(std)

    def compute_log_mel(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-mel (B, bins, F) of wav (B, 1, N) and the mask (B, F) of whole code frames.

        F is `frames_per_code` for each of ceil(N / hop_length) code frames; what is masked has no meaning.
        """
        mel, hop = self.architecture.mel, self.architecture.hop_length
        samples = -(-wav.shape[-1] // hop) * hop
        lengths = lengths.to(wav.device)
        wav = wav[:, 0].masked_fill(~length_mask(lengths, wav.shape[-1]), 0)
        wav = nn.functional.pad(wav, (0, samples + mel.n_fft // 2 - wav.shape[-1]))
        frames = samples // mel.hop_length
        mask = length_mask(-(-lengths // hop) * self.architecture.frames_per_code, frames)
        return self.log_mel(wav)[..., :frames], mask

    def _target(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        log_mel, mask = self.compute_log_mel(wav, lengths)
        return ((log_mel - self.mel_mean) / self.mel_std).masked_fill(~mask[:, None], 0), mask

    def _encode(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        for layer, stride in zip(self.encoder, self.architecture.down, strict=True):
            mask = mask[:, ::stride]
            x = layer(x, mask)
        return self.to_latents(x).masked_fill(~mask[:, None], 0), mask

    def _decode(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        for layer, stride in zip(self.decoder, self.up, strict=True):
            mask = mask.repeat_interleave(stride, dim=1)
            x = layer(x, mask)
        return self.to_mel(x).masked_fill(~mask[:, None], 0), mask

    def forward(self, wav: Tensor, lengths: Tensor, num_codebooks: Tensor | None = None, seed: int = 0) -> Output:
        """Code audio and give its standardised log-mel back; in training mode the codebooks learn.

        Args:
            wav: (B, 1, N) at the architecture's sample rate.
            lengths: (B,) valid samples of each, at least 1; the rest is ignored.
            num_codebooks: (B,) codebooks that each item uses, 0 = no quantisation; None = all.
            seed: of the vectors that dead codebook entries restart at.
        """
        target, mask = self._target(wav, lengths)
        latents, frames = self._encode(target, mask)
        quantized = self.quantizer(latents, frames, num_codebooks, generator_seed=seed)
        output, _ = self._decode(quantized.output, frames)
        return Output(target, output.to(target.dtype), mask, latents, quantized)

    def latents(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents (B, D, T) before the quantizer, zero past each end, and their mask (B, T)."""
        return self._encode(*self._target(wav, lengths))

    @torch.no_grad()
    def encode(self, wav: Tensor, lengths: Tensor) -> Tensor:
        """Return the codes of wav (B, 1, N): (B, Q, T) int64, T = ceil(N / hop_length), zero past each item's end."""
        latents, frames = self.latents(wav, lengths)
        return self.quantizer.encode(latents).masked_fill(~frames[:, None], 0)

    @torch.no_grad()
    def decode(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the log-mel of codes (B, q, T) of the first q codebooks: (B, bins, T * frames_per_code).

        Args:
            codes: integers.
            lengths: (B,) valid code frames of each, T by default; past them the result is that of silence.

        Raises:
            ValueError: codes out of range, see `ResidualQuantizer.decode`.
        """
        latents = self.quantizer.decode(codes)
        everywhere = torch.full((len(codes),), codes.shape[-1])
        frames = length_mask((everywhere if lengths is None else lengths).to(codes.device), codes.shape[-1])
        output, mask = self._decode(latents.masked_fill(~frames[:, None], 0), frames)
        log_mel = output.to(latents.dtype) * self.mel_std + self.mel_mean
        return log_mel.masked_fill(~mask[:, None], self.architecture.mel.log_floor)

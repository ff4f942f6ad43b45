"""The waveform codec: convolutional encoder, residual quantizer, and a decoder that mirrors the encoder."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from voxlab.errors import UserError, check_types
from voxlab.models.tokenizer.masks import length_mask
from voxlab.models.tokenizer.output import Output
from voxlab.models.tokenizer.quantizer import Quantized, QuantizerSettings
from voxlab.models.tokenizer.rates import Rates
from voxlab.models.tokenizer.snake import DILATIONS, KERNEL, FullPrecision, SnakeDecoder, SnakeEncoder, add_weight_norm


@dataclass(frozen=True, kw_only=True)
class WaveArchitecture(Rates):
    """Shape of a waveform codec; plain values only, so that a file can hold it.

    Attributes:
        sample_rate: Hz.
        strides: downsampling of each encoder block, first block first, each at least 2; their product is the hop.
        width: channels after the first convolution; every block doubles them.
        latent: width of the latents, which the quantizer projects to `quantizer.codebook_dim`.
        causal: no look-ahead, so that the codec can stream.
        backbone: "snake" (periodic activations, dilations 1, 3, 9) or "seanet" (ELU, moshi's network, causal only).
        quantizer: the residual quantizer.

    Raises:
        UserError: a value that is not allowed: a stride below 2, an unknown backbone, seanet without causal.
    """

    family: ClassVar[str] = "wave"
    sample_rate: int = 24000
    strides: tuple[int, ...] = (2, 5, 6, 8)
    width: int = 32
    latent: int = 512
    causal: bool = False
    backbone: str = "snake"
    quantizer: QuantizerSettings = field(default_factory=lambda: QuantizerSettings(codebook_dim=128))

    def __post_init__(self) -> None:
        check_types(self, "codec.architecture.")
        object.__setattr__(self, "strides", tuple(self.strides))
        if not self.strides or min(self.strides) < 2:
            raise UserError(f"codec.architecture.strides={list(self.strides)}: each must be a whole number from 2 on")
        for name in ("sample_rate", "width", "latent"):
            if getattr(self, name) < 1:
                raise UserError(f"codec.architecture.{name}={getattr(self, name)}: must be above 0")
        if self.backbone not in ("snake", "seanet"):
            raise UserError(f"codec.architecture.backbone={self.backbone!r} is unknown; allowed: snake, seanet")
        if self.backbone == "seanet" and not self.causal:
            raise UserError("codec.architecture.backbone=seanet is causal only; add codec.architecture.causal=true")

    @property
    def hop_length(self) -> int:
        """Samples per code frame."""
        return math.prod(self.strides)

    @property
    def context_frames(self) -> tuple[int, int]:
        """Code frames before and after a chunk that its codes, or its audio, depend on at most."""
        reach, steps = KERNEL // 2, 1
        for stride in self.strides:
            reach += steps * (KERNEL // 2 * sum(DILATIONS) + stride)
            steps *= stride
        frames = math.ceil(reach / steps) + KERNEL // 2
        return (2 * frames, 0) if self.causal else (frames, frames)

    def build(self) -> "WaveCodec":
        """Make the network, with fresh weights."""
        return WaveCodec(self)


class WaveCodec(nn.Module):
    """Audio (B, 1, N) to codes (B, Q, T) and back, T = ceil(N / hop_length).

    Batch equals single: audio is padded with zeros to whole frames, and an item sees nothing of its neighbours' length.

    Args:
        architecture: the shape.
    """

    def __init__(self, architecture: WaveArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder, self.decoder = _backbone(architecture)
        self.quantizer = architecture.quantizer.build(architecture.latent)

    def forward(self, wav: Tensor, lengths: Tensor, num_codebooks: Tensor | None = None, seed: int = 0) -> Output:
        """Encode, quantize and decode for training.

        Args:
            wav: (B, 1, N) float32.
            lengths: (B,) valid samples, 1..N; on the CPU it costs nothing to see that all are full.
            num_codebooks: (B,) codebooks to use per item, 0 bypasses the quantizer; None uses all.
            seed: of the quantizer's random choices in this step.

        Returns:
            target and output (B, 1, T * hop_length), zero past each item's end, and what lies between.
        """
        target = self._whole_frames(wav, lengths)
        latents, frames = self._encode(target, lengths)
        quantized: Quantized = self.quantizer(latents, frames, num_codebooks, generator_seed=seed)
        mask = length_mask(lengths.to(wav.device), target.shape[-1])
        output = self._decode(quantized.output, self._needed(frames, lengths)) * mask[:, None]
        return Output(target, output, mask, latents, quantized)

    def latents(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents (B, latent, T) before the quantizer, zero past each end, and their mask (B, T)."""
        return self._encode(self._whole_frames(wav, lengths), lengths)

    def encode(self, wav: Tensor, lengths: Tensor) -> Tensor:
        """Return int64 codes (B, Q, T) of wav (B, 1, N), 0 past each item's ceil(length / hop_length) frames."""
        latents, frames = self.latents(wav, lengths)
        return self.quantizer.encode(latents).masked_fill(~frames[:, None], 0)

    def decode(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return audio (B, 1, T * hop_length) in -1..1 of the first q codebooks.

        Args:
            codes: (B, q, T) int64.
            lengths: (B,) valid frames per item, None when all are; the audio is zero past them.

        Raises:
            ValueError: a code or q is out of range.
        """
        latents = self.quantizer.decode(codes)
        if lengths is None:
            return self._decode(latents, None)
        mask = length_mask(lengths.to(codes.device), codes.shape[-1])
        wav = self._decode(latents * mask[:, None], mask)
        return wav * mask.repeat_interleave(self.architecture.hop_length, dim=1)[:, None]

    @contextlib.contextmanager
    def streaming(self, batch: int = 1) -> Iterator[None]:
        """Keep the state of `encode_chunk` and `decode_chunk` between calls, for `batch` streams side by side.

        Raises:
            UserError: the architecture looks ahead.
        """
        if not self.architecture.causal:
            raise UserError("this codec looks ahead and can't stream; train one with codec.architecture.causal=true")
        from moshi.modules.conv import StreamingConv1d, StreamingConvTranspose1d

        with contextlib.ExitStack() as stack, torch.no_grad():
            for module in self.modules():
                if isinstance(module, StreamingConv1d | StreamingConvTranspose1d):
                    stack.enter_context(module.streaming(batch))
            yield

    def encode_chunk(self, wav: Tensor) -> Tensor:
        """Return the codes (B, Q, n) of the next n frames wav (B, 1, n * hop_length) of the open streams."""
        return self.quantizer.encode(self.encoder(wav))

    def decode_chunk(self, codes: Tensor) -> Tensor:
        """Return the audio (B, 1, n * hop_length) of the next n frames codes (B, q, n) of the open streams."""
        return self.decoder(self.quantizer.decode(codes))

    def _whole_frames(self, wav: Tensor, lengths: Tensor) -> Tensor:
        """Zero wav (B, 1, N) past each end and pad it to whole frames."""
        missing = -wav.shape[-1] % self.architecture.hop_length
        wav = wav * length_mask(lengths.to(wav.device), wav.shape[-1])[:, None]
        return nn.functional.pad(wav, (0, missing))

    def _encode(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hop_length = self.architecture.hop_length
        frames = length_mask(-(-lengths // hop_length), wav.shape[-1] // hop_length).to(wav.device)
        needed = self._needed(frames, lengths)
        latents = self.encoder(wav) if needed is None else self.encoder(wav, needed)
        return latents * frames[:, None], frames

    def _decode(self, latents: Tensor, mask: Tensor | None) -> Tensor:
        masked = mask is not None and not self.architecture.causal
        return self.decoder(latents, mask) if masked else self.decoder(latents)

    def _needed(self, frames: Tensor, lengths: Tensor) -> Tensor | None:
        """Return the mask for the convolutions, None where it changes nothing; never waits for a GPU."""
        full = lengths.device.type == "cpu" and bool(
            (-(-lengths // self.architecture.hop_length)).min() == frames.shape[1]
        )
        return None if self.architecture.causal or full else frames


def _backbone(architecture: WaveArchitecture) -> tuple[nn.Module, nn.Module]:
    if architecture.backbone == "seanet":
        return _seanet(architecture)
    sizes = architecture.strides, architecture.width, architecture.latent, architecture.causal
    return SnakeEncoder(*sizes), SnakeDecoder(*sizes)


def _seanet(architecture: WaveArchitecture) -> tuple[nn.Module, nn.Module]:
    """Return moshi's causal SEANet in the sizes of Mimi's, with weight norm and tanh at the end."""
    from moshi.modules.seanet import SEANetDecoder, SEANetEncoder

    settings: dict[str, Any] = {
        "dimension": architecture.latent,
        "n_filters": architecture.width,
        "n_residual_layers": 1,
        "ratios": list(reversed(architecture.strides)),
        "kernel_size": KERNEL,
        "last_kernel_size": 3,
        "residual_kernel_size": 3,
        "causal": True,
        "pad_mode": "constant",
    }
    encoder, decoder = SEANetEncoder(**settings), SEANetDecoder(**settings, final_activation="Tanh")
    decoder.model[-2] = FullPrecision(decoder.model[-2])
    add_weight_norm(encoder)
    add_weight_norm(decoder)
    return encoder, decoder

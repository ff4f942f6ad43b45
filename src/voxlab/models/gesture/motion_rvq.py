"""Residual-vector-quantized autoencoder of one part of the body: normalised motion to codes and back.

One-dimensional convolutions over time; what a code covers in frames is the product of the strides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NoReturn

import torch
from torch import Tensor, nn

from voxlab.errors import UserError, check_types
from voxlab.models.tokenizer.output import Output
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.motion.parts import Part

_LARGEST_CODE = 2**15  # codes are stored as int16


@dataclass(frozen=True, kw_only=True)
class MotionArchitecture:
    """Shape of a `MotionRvqVae`.

    Attributes:
        dim: numbers a frame D; None: those of the part, see `of_part`.
        width: channels of the convolutions.
        depth: residual blocks at each stride.
        dilation_growth: dilation of a block over that of the next; the last has 1.
        dropout: in the residual blocks, 0..1.
        code_dim: width of the latents C.
        strides: of the stages that shorten time, each 1 or 2.
        quantizer: of the latents.

    Raises:
        UserError: a value out of range.
    """

    family: ClassVar[str] = "motion"

    dim: int | None = None
    width: int = 512
    depth: int = 3
    dilation_growth: int = 3
    dropout: float = 0.2
    code_dim: int = 128
    strides: Sequence[int] = (2, 2)
    quantizer: QuantizerSettings = field(default_factory=lambda: QuantizerSettings(num_codebooks=6))

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(self.strides) if isinstance(self.strides, list) else self.strides)
        check_types(self, "codec.architecture.")
        for name in ("dim", "width", "depth", "dilation_growth", "code_dim"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"codec.architecture.{name}={value}: give a whole number, 1 or more.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"codec.architecture.dropout={self.dropout}: give a number from 0 to below 1.")
        if not self.strides or not set(self.strides) <= {1, 2}:
            raise UserError(f"codec.architecture.strides={list(self.strides)}: give a list of 1 and 2, like [2, 2].")
        if self.codebook_size > _LARGEST_CODE:
            raise UserError(
                f"codec.architecture.quantizer.codebook_size={self.codebook_size}: at most {_LARGEST_CODE}."
            )

    @property
    def stride(self) -> int:
        """Frames of motion per code."""
        return math.prod(self.strides)

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    def build(self) -> "MotionRvqVae":
        """Make the network with random weights.

        Raises:
            ValueError: `dim` is not known yet.
        """
        return MotionRvqVae(self)


@dataclass(frozen=True, kw_only=True)
class MotionRvq:
    """What conf/codec/motion_rvq.yaml describes: a network to be trained for any part, or a trained one.

    Attributes:
        weights: trained one: run folder, codec folder, checkpoint, or net_*.pth; None: to be trained.
        statistics: .npz of mean and standard deviation, for net_*.pth, which hold none.
        architecture: of parts of the body.
        face_strides: instead of `architecture.strides` for parts with expressions; faces move faster than bodies.
    """

    weights: str | None = None
    statistics: str | None = None
    architecture: MotionArchitecture = field(default_factory=MotionArchitecture)
    face_strides: Sequence[int] = (2, 1)

    @property
    def info(self) -> NoReturn:
        """Refuse: tasks that ask this want a codec of audio.

        Raises:
            UserError: always.
        """
        raise UserError(
            "codec=motion_rvq codes the motion of a body, not audio: it goes with task=train_tokenizer data=beat2. "
            "Choose codec=mimi, encodec, snac or rvq here."
        )

    def of_part(self, part: Part) -> MotionArchitecture:
        """Return the architecture for a part of the body."""
        strides = self.face_strides if "expressions" in part.extras else self.architecture.strides
        return replace(self.architecture, dim=part.dim, strides=tuple(strides))


class MotionRvqVae(nn.Module):
    """Network of a `MotionArchitecture`.

    Motion is (B, T, D), normalised, T a multiple of `stride`; latents are (B, N, C) and codes (B, N, Q) with
    N = T / stride. `mean` and `std` (D,) are those of the motion that it was trained on: the raw numbers are
    `x * std + mean`.

    Source: the encoder and decoder of T2M-GPT's motion autoencoder (Zhang et al. 2023), as the part-wise tokenizers
    for BEAT2 use it, with a residual quantizer (Guo et al. 2024).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: MotionArchitecture) -> None:
        super().__init__()
        if architecture.dim is None:
            raise ValueError("the width of the motion is not known; take architecture.of_part or set dim")
        self.architecture, width = architecture, architecture.width
        self.register_buffer("mean", torch.zeros(architecture.dim))
        self.register_buffer("std", torch.ones(architecture.dim))
        stages = [
            nn.Sequential(_strided_conv(width, stride), _residual_blocks(architecture))
            for stride in architecture.strides
        ]
        self.encoder = nn.Sequential(
            _conv(architecture.dim, width), nn.ReLU(), *stages, _conv(width, architecture.code_dim)
        )
        self.quantizer = architecture.quantizer.build(architecture.code_dim)
        stages = [
            nn.Sequential(_residual_blocks(architecture), nn.Upsample(scale_factor=float(stride)), _conv(width, width))
            for stride in reversed(architecture.strides)
        ]
        last = (_conv(width, width), nn.ReLU(), _conv(width, architecture.dim))
        self.decoder = nn.Sequential(_conv(architecture.code_dim, width), nn.ReLU(), *stages, *last)

    @property
    def stride(self) -> int:
        """Frames of motion per code."""
        return self.architecture.stride

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return self.architecture.num_codebooks

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.architecture.codebook_size

    @property
    def code_dim(self) -> int:
        """Width of the latents C."""
        return self.architecture.code_dim

    @property
    def codebooks(self) -> Tensor:
        """(Q, K, C) entries; the latent of codes is the sum of one of each."""
        return self.quantizer.entries

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation (D,) of the raw numbers."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalize(self, raw: Tensor) -> Tensor:
        """Return raw numbers (..., D) as the network sees them."""
        return (raw - self.mean) / self.std

    def denormalize(self, x: Tensor) -> Tensor:
        """Return what the network gives (..., D) as raw numbers."""
        return x * self.std + self.mean

    def forward(self, x: Tensor, num_codebooks: Tensor | None = None, seed: int = 0) -> Output:
        """Code motion (B, T, D) and give it back; in training mode the codebooks learn.

        Args:
            x: normalised.
            num_codebooks: (B,) codebooks that each item uses, 0 = no quantisation; None = all.
            seed: of the vectors that dead codebook entries restart at.
        """
        latents = self.encode_latents(x).transpose(1, 2)
        every = torch.ones(latents.shape[0], latents.shape[2], dtype=torch.bool, device=x.device)
        quantized = self.quantizer(latents, every, num_codebooks, generator_seed=seed)
        output = self.decode_latents(quantized.output.transpose(1, 2)).to(x.dtype)
        return Output(x, output, every.repeat_interleave(self.stride, dim=1), latents, quantized)

    def encode_latents(self, x: Tensor) -> Tensor:
        """Return the latents (B, N, C) of normalised motion (B, T, D) before the quantizer.

        Raises:
            ValueError: T is not a multiple of `stride`.
        """
        if not x.shape[1] or x.shape[1] % self.stride:
            raise ValueError(f"{x.shape[1]} frames; needs a multiple of {self.stride}")
        return self.encoder(x.transpose(1, 2)).transpose(1, 2)

    def decode_latents(self, z: Tensor) -> Tensor:
        """Return the normalised motion (B, N * stride, D) of latents (B, N, C), with their gradient."""
        return self.decoder(z.transpose(1, 2)).transpose(1, 2)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return the codes (B, N, Q) int64 of normalised motion (B, T, D)."""
        return self.quantizer.encode(self.encode_latents(x).transpose(1, 2)).transpose(1, 2)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the normalised motion (B, N * stride, D) of codes (B, N, q) of the first q codebooks.

        Raises:
            ValueError: codes out of range, see `ResidualQuantizer.decode`.
        """
        return self.decode_latents(self.quantizer.decode(codes.transpose(1, 2)).transpose(1, 2))


class ResidualBlock(nn.Module):
    """A dilated convolution and one over channels, added to their input; (B, C, T) to (B, C, T)."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return x and what the block adds to it."""
        return x + self.dropout(self.conv2(self.conv1(x.relu()).relu()))


def _conv(inputs: int, outputs: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, 3, padding=1)


def _strided_conv(width: int, stride: int) -> nn.Conv1d:
    """Return a convolution that gives T / stride frames."""
    return nn.Conv1d(width, width, 4, stride, padding=1) if stride == 2 else _conv(width, width)


def _residual_blocks(architecture: MotionArchitecture) -> nn.Sequential:
    """Return the blocks of a stage, widest dilation first."""
    dilations = [architecture.dilation_growth**power for power in reversed(range(architecture.depth))]
    return nn.Sequential(*[ResidualBlock(architecture.width, each, architecture.dropout) for each in dilations])

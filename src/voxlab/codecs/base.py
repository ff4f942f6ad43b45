"""The contract of every codec: `CodecInfo`, `Codes`, the `Codec` protocol, and plain helpers on codes.

Nothing here loads a model; tasks and data readers import this file, the codecs implement it.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class CodecInfo:
    """What a codec is, known without loading its weights.

    Attributes:
        name: word used in configs and artefacts.
        sample_rate: Hz.
        channels: audio channels C.
        hop_length: samples per frame of the finest codebook.
        num_codebooks: K.
        codebook_size: entries per codebook.
        strides: finest frames per code of codebook k ((4, 2, 1) for SNAC, all 1 for flat codecs).
        weights_id: "sha256:<16 hex>" of the weight and config files, or "random:<seed>".
        has_scales: codes come with a loudness factor per segment (EnCodec 48 kHz) and decode only with it.
    """

    name: str
    sample_rate: int
    channels: int
    hop_length: int
    num_codebooks: int
    codebook_size: int
    strides: tuple[int, ...]
    weights_id: str
    has_scales: bool = False

    @property
    def frame_rate(self) -> float:
        """Frames per second of the finest codebook, in Hz."""
        return self.sample_rate / self.hop_length

    @property
    def bitrate(self) -> float:
        """Bits per second of all codebooks together."""
        return math.log2(self.codebook_size) * self.frame_rate * sum(1 / stride for stride in self.strides)


@dataclass(frozen=True)
class Codes:
    """Discrete codes of a batch of B items, on the host; waveforms stay on the codec's device.

    Attributes:
        codebooks: one int64 (B, N_k) tensor per codebook; N_k = N / strides[k]; padding holds zeros.
        lengths: (B,) int64, valid frames of the finest codebook; codebook k has lengths // strides[k].
        scales: (B, S) float32 loudness factor per segment (EnCodec 48 kHz), or None.
        num_samples: (B,) int64, samples to keep after decoding, or None for all of them.
    """

    codebooks: tuple[Tensor, ...]
    lengths: Tensor
    scales: Tensor | None = None
    num_samples: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)


@runtime_checkable
class Codec(Protocol):
    """Audio to codes and back. Constructors only store and check arguments; `to` loads the weights."""

    @property
    def info(self) -> CodecInfo:
        """Describe the codec; resolves and hashes the weight files but loads none."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that changes the bytes of results, as JSON-able values; loads no model."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`; loads the weights on the first call."""
        ...

    def encode(self, wav: Tensor, lengths: Tensor) -> Codes:
        """Encode wav (B, C, T) float32, on any device, with (B,) valid samples each; samples beyond are ignored."""
        ...

    def decode(self, codes: Codes, seeds: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Decode to wav (B, C, T) float32, zero past each end, and (B,) lengths; seeds: one per item, for noise."""
        ...


def strides_of(codes: Codes) -> tuple[int, ...]:
    """Return the finest frames per code of each codebook, read off the padded widths."""
    widths = [codebook.shape[-1] for codebook in codes.codebooks]
    return tuple(max(widths) // width if width else 1 for width in widths)


def stack(codes: Codes) -> Tensor:
    """Return the codes of a flat codec as one (B, K, N) tensor.

    Raises:
        ValueError: the codebooks have different rates.
    """
    if len({codebook.shape for codebook in codes.codebooks}) != 1:
        shapes = [tuple(codebook.shape) for codebook in codes.codebooks]
        raise ValueError(f"codebooks of different rates cannot be stacked: shapes {shapes}; use codes.codebooks")
    return torch.stack(codes.codebooks, dim=1)


def unstack(codes: Tensor, lengths: Tensor, num_samples: Tensor | None = None, scales: Tensor | None = None) -> Codes:
    """Wrap a (B, K, N) tensor of a flat codec, setting everything past each length to zero."""
    valid = length_mask(lengths, codes.shape[-1], codes.device)[:, None]
    return Codes(codes.masked_fill(~valid, 0).unbind(1), lengths, scales, num_samples)


def single(codes: Codes, item: int) -> Codes:
    """Return item `item` as a batch of one, without padding."""
    frames = int(codes.lengths[item])
    rows = [
        codebook[item : item + 1, : frames // stride]
        for codebook, stride in zip(codes.codebooks, strides_of(codes), strict=True)
    ]
    return Codes(
        tuple(rows),
        codes.lengths[item : item + 1],
        None if codes.scales is None else codes.scales[item : item + 1],
        None if codes.num_samples is None else codes.num_samples[item : item + 1],
    )


def collate(items: Sequence[Codes]) -> Codes:
    """Join batches into one, padding codes and scales with zeros.

    Raises:
        ValueError: no items, or some items have `scales` or `num_samples` and others have not.
    """
    if not items:
        raise ValueError("nothing to collate: got an empty list of codes")
    books = [pad_rows([row for item in items for row in item.codebooks[k]]) for k in range(len(items[0].codebooks))]
    scales = _all_or_none([item.scales for item in items], "scales")
    num_samples = _all_or_none([item.num_samples for item in items], "num_samples")
    return Codes(
        tuple(books),
        torch.cat([item.lengths for item in items]),
        None if scales is None else pad_rows([row for rows in scales for row in rows]),
        None if num_samples is None else torch.cat(num_samples),
    )


def pad_rows(rows: Sequence[Tensor]) -> Tensor:
    """Stack (..., N_i) tensors into (B, ..., N), padded with zeros on the right."""
    width = max(row.shape[-1] for row in rows)
    return torch.stack([torch.nn.functional.pad(row, (0, width - row.shape[-1])) for row in rows])


def length_mask(lengths: Tensor, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Return a (B, width) bool mask, True where the position lies before the item's length."""
    return torch.arange(width, device=device) < lengths.to(device)[:, None]


def check_codes(codes: Codes, info: CodecInfo) -> None:
    """Check codes on the host, before a device sees them: a bad index on CUDA poisons the whole process.

    Raises:
        ValueError: names the item, the codebook, the value found and what is allowed.
    """
    if len(codes.codebooks) != info.num_codebooks:
        raise ValueError(f"{info.name}: got {len(codes.codebooks)} codebooks, needs {info.num_codebooks}")
    _check_rates(codes, info)
    for k, (codebook, stride) in enumerate(zip(codes.codebooks, info.strides, strict=True)):
        rows = codebook.cpu()
        valid = length_mask(codes.lengths // stride, rows.shape[-1])
        bad = valid & ((rows < 0) | (rows >= info.codebook_size))
        if bad.any():
            item, frame = (int(i) for i in bad.nonzero()[0])
            raise ValueError(
                f"{info.name}: item {item}, codebook {k}, frame {frame}: code {int(rows[item, frame])} "
                f"is out of range; allowed 0..{info.codebook_size - 1}"
            )


def _check_rates(codes: Codes, info: CodecInfo) -> None:
    widths = [codebook.shape[-1] for codebook in codes.codebooks]
    if any(width * stride != widths[-1] * info.strides[-1] for width, stride in zip(widths, info.strides, strict=True)):
        raise ValueError(
            f"{info.name}: codebooks of {widths} codes do not fit together; one code of each spans "
            f"{info.strides} finest frames, so N codes of the last need {[f'N/{s}' for s in info.strides]}"
        )
    for item, frames in enumerate(codes.lengths.tolist()):
        if not 0 < frames <= widths[-1] * info.strides[-1] or frames % max(info.strides):
            raise ValueError(
                f"{info.name}: item {item} has {frames} frames; allowed are multiples of {max(info.strides)} "
                f"from {max(info.strides)} to {widths[-1] * info.strides[-1]}"
            )


def item_seed(seed: int, content: str) -> int:
    """Derive an item's noise seed from its content, so that it depends on no batch, rank, file or resume point.

    Returns:
        the first 8 bytes of SHA-256("<seed>|<content>"), little-endian, top bit cleared.
    """
    digest = hashlib.sha256(f"{seed}|{content}".encode()).digest()
    return int.from_bytes(digest[:8], "little") & (2**63 - 1)


def zero_past(wav: Tensor, lengths: Tensor) -> Tensor:
    """Return a copy of wav (B, C, T) with every sample past its item's length set to zero."""
    return wav.masked_fill(~length_mask(lengths, wav.shape[-1], wav.device)[:, None], 0.0)


def check_wav(wav: Tensor, lengths: Tensor, info: CodecInfo) -> Tensor:
    """Check a batch before encoding and return its lengths as int64 on the CPU.

    Raises:
        ValueError: wrong shape, wrong number of channels, or a length outside 1..T.
    """
    if wav.dim() != 3 or wav.shape[1] != info.channels:
        raise ValueError(f"{info.name}: wav of shape {tuple(wav.shape)}; needs (B, {info.channels}, T)")
    lengths = lengths.to("cpu", torch.int64)
    if len(lengths) != len(wav) or bool(((lengths < 1) | (lengths > wav.shape[-1])).any()):
        raise ValueError(
            f"{info.name}: lengths {lengths.tolist()} for wav {tuple(wav.shape)}; needs {len(wav)} values "
            f"from 1 to {wav.shape[-1]}"
        )
    return lengths


def _all_or_none(values: Sequence[Tensor | None], name: str) -> list[Tensor] | None:
    present = [value for value in values if value is not None]
    if present and len(present) != len(values):
        raise ValueError(f"cannot collate: {len(present)} of {len(values)} items have {name}")
    return present or None

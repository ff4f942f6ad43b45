"""How a codec uses its codebooks: use beside its ceiling, entropy in bits, perplexity, the rate a coder could reach.

A codebook is judged by how often each of its K entries occurs: counts (K,) int64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ENOUGH = 5  # codes per entry from where on use and entropy say something about the codebook rather than the sample


def count_codes(codes: Tensor, codebook_size: int) -> Tensor:
    """Count how often each entry occurs in codes (...,) int64.

    Raises:
        ValueError: a code is out of range.
    """
    flat = codes.reshape(-1).cpu()
    if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < codebook_size:
        found = f"{int(flat.min())} to {int(flat.max())}"
        raise ValueError(f"codes from {found}; a codebook of {codebook_size} entries has 0..{codebook_size - 1}")
    return torch.bincount(flat, minlength=codebook_size)


def entropy_bits(counts: Tensor) -> float:
    """Return -sum p log2 p in bits: 10 for 1024 entries that are used alike, 0 for none or a single one."""
    p = counts.double() / counts.sum().clamp_min(1)
    return float(-torch.special.xlogy(p, p).sum() / math.log(2)) + 0.0  # no -0


def use(counts: Tensor) -> float:
    """Return the share of the entries that occur."""
    return float((counts > 0).double().mean())


def use_ceiling(num_codes: int, codebook_size: int) -> float:
    """Return the share that `num_codes` evenly drawn codes are expected to use: 1 - (1 - 1/K)^N."""
    return -math.expm1(num_codes * math.log1p(-1 / codebook_size)) if codebook_size > 1 else float(num_codes > 0)


@dataclass(frozen=True)
class CodebookUse:
    """What a sample of codes shows of one codebook.

    Attributes:
        num_codes: codes in the sample, N.
        codebook_size: entries, K.
        used: entries that occur.
        use: their share.
        ceiling: the share expected of N evenly drawn codes.
        entropy: bits per code, of log2 K.
        normalized_entropy: entropy / log2 K.
        perplexity: 2^entropy: the number of evenly used entries with this entropy.
        is_enough: N >= 5 K; below that, a low use may be the sample's.
    """

    num_codes: int
    codebook_size: int
    used: int
    use: float
    ceiling: float
    entropy: float
    normalized_entropy: float
    perplexity: float
    is_enough: bool


def describe_use(counts: Tensor) -> CodebookUse:
    """Describe a codebook by its counts (K,)."""
    size, total, bits = len(counts), int(counts.sum()), entropy_bits(counts)
    return CodebookUse(
        num_codes=total,
        codebook_size=size,
        used=int((counts > 0).sum()),
        use=use(counts),
        ceiling=use_ceiling(total, size),
        entropy=bits,
        normalized_entropy=bits / math.log2(size) if size > 1 else 0.0,
        perplexity=2**bits,
        is_enough=total >= ENOUGH * size,
    )


def entropy_coded_bitrate(counts: Sequence[Tensor], frame_rate: float, strides: Sequence[int]) -> float:
    """Return the bit/s of an ideal coder that knows how often each entry occurs, but not what came before it.

    Args:
        counts: (K,) per codebook.
        frame_rate: Hz of the finest codebook.
        strides: finest frames per code of each codebook.
    """
    return sum(frame_rate / stride * entropy_bits(counted) for counted, stride in zip(counts, strides, strict=True))


def agreement(codes: Sequence[Tensor], others: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return (equal, all) codes per codebook of two encodings, over the frames that both have.

    Args:
        codes: (N_k,) per codebook.
        others: (M_k,) per codebook.
    """
    widths = [min(len(one), len(other)) for one, other in zip(codes, others, strict=True)]
    cut = [(one[:n], other[:n], n) for one, other, n in zip(codes, others, widths, strict=True)]
    return [(int((one == other).sum()), n) for one, other, n in cut]

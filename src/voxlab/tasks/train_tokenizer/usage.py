"""Use of the codebooks during training, over a sliding window of vectors."""

from collections import deque

import torch
from torch import Tensor

from voxlab.models.tokenizer.quantizer import Quantized

_WINDOW = 10  # vectors for each entry of a codebook


class CodebookUse:
    """The codes of the last steps, at least 10 vectors for each entry.

    Args:
        codebook_size: entries of each codebook.
    """

    def __init__(self, codebook_size: int) -> None:
        self.codebook_size = codebook_size
        self._codes: deque[Tensor] = deque()
        self._vectors = 0
        self._revived: Tensor | None = None
        self._errors: Tensor | None = None

    def add(self, quantized: Quantized, num_codebooks: Tensor, mask: Tensor, world: int = 1) -> None:
        """Add this rank's part of a batch; what an item did not use, and frames past its end, do not count."""
        self._codes.append(valid_codes(quantized.codes, num_codebooks, mask))
        self._vectors += self._codes[-1].shape[-1]
        while (self._vectors - self._codes[0].shape[-1]) * world >= _WINDOW * self.codebook_size:
            self._vectors -= self._codes.popleft().shape[-1]
        self._errors = quantized.relative_error.detach()
        revived = quantized.revived.detach()
        self._revived = revived if self._revived is None else self._revived + revived

    def counts(self) -> Tensor | None:
        """Return (Q, K) how often each entry was used on this rank in the window; None before the first batch."""
        return count_codes(torch.cat(list(self._codes), dim=1), self.codebook_size) if self._codes else None

    def state(self) -> dict[str, Tensor]:
        """Return the window, so that the curves of a resumed run go on (with several ranks: from the first one's)."""
        sizes = torch.tensor([codes.shape[-1] for codes in self._codes])
        codes = torch.cat(list(self._codes), dim=1).to("cpu", torch.int32) if self._codes else torch.zeros(0, 0)
        return {"sizes": sizes, "codes": codes} | ({} if self._revived is None else {"revived": self._revived.cpu()})

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Take what `state` returned."""
        sizes = state["sizes"].tolist()
        self._codes = deque(state["codes"].to(device, torch.int64).split(sizes, dim=1)) if sizes else deque()
        self._vectors = sum(sizes)
        self._revived = state["revived"].to(device) if "revived" in state else None

    def take(self) -> tuple[Tensor, Tensor]:
        """Return (Q,) relative errors of the last batch and (Q,) entries revived since the last call."""
        assert self._errors is not None
        assert self._revived is not None
        revived, self._revived = self._revived, None
        return self._errors, revived


def valid_codes(codes: Tensor, num_codebooks: Tensor | None, mask: Tensor) -> Tensor:
    """Return codes (B, Q, T) as (Q, B * T), -1 past an item's end and in codebooks that it did not use.

    Args:
        codes: of a batch.
        num_codebooks: (B,) that each item used; None: all.
        mask: (B, T * n) bool of mel frames or samples, n for each code.
    """
    valid = mask[:, :: mask.shape[-1] // codes.shape[-1]][:, None, : codes.shape[-1]]
    if num_codebooks is not None:
        valid = valid & (torch.arange(codes.shape[1], device=codes.device)[:, None] < num_codebooks[:, None, None])
    return codes.detach().masked_fill(~valid, -1).transpose(0, 1).flatten(1)


def count_codes(codes: Tensor, codebook_size: int) -> Tensor:
    """Return (Q, K) how often each entry occurs in codes (Q, N); -1 does not count."""
    counts = torch.zeros(len(codes), codebook_size + 1, dtype=torch.int64, device=codes.device)
    return counts.scatter_add_(1, codes + 1, torch.ones_like(codes))[:, 1:].contiguous()  # it goes through collectives


def use_metrics(counts: Tensor) -> dict[str, float]:
    """Return share of entries used, entropy in bits and perplexity of each codebook, from (Q, K) counts.

    Names are "vq/use/1" and so on, the codebooks counted from 1; a codebook without any code is left out.
    """
    metrics: dict[str, float] = {}
    for number, row in enumerate(counts.double().cpu(), 1):
        total = float(row.sum())
        if total == 0:
            continue
        share = row / total
        bits = float(-(share * share.clamp_min(1e-30).log2()).sum())
        metrics[f"vq/use/{number}"] = float((row > 0).double().mean())
        metrics[f"vq/entropy_bits/{number}"] = bits
        metrics[f"vq/perplexity/{number}"] = 2.0**bits
    return metrics

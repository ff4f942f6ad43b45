"""The codes of one part of the body: into tokens, and out of their states, each layer given the layers before it."""

import torch
from torch import Tensor, nn


def pick_entries(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Return what each layer adds: codes (..., Q) of codebooks (Q, K, C) -> (..., Q, C)."""
    return codebooks[torch.arange(len(codebooks), device=codes.device), codes]


class PartCodes(nn.Module):
    """The codes of one part: into tokens, and out of their states.

    Attributes:
        codebooks: (Q, K, C) entries as the tokenizer has them, frozen and left out of the state dict.
        entries: (Q, K, C) the same at about unit variance.

    Args:
        codebooks: (Q, K, C).
        width: of the tokens and their states.
        head_width: of the network that predicts codes.
    """

    codebooks: Tensor
    entries: Tensor

    def __init__(self, codebooks: Tensor, width: int, head_width: int) -> None:
        super().__init__()
        books = codebooks.detach().float()
        self.register_buffer("codebooks", books.clone(), persistent=False)
        # The scale of latents is the tokenizer's affair: what the network sees has about unit variance.
        self.register_buffer("entries", books / books[0].std().clamp_min(1e-6), persistent=False)
        self.project = nn.Linear(books.shape[2], width)
        self.hidden = nn.Parameter(torch.randn(width))  # shown instead of codes that aren't visible
        self.name = nn.Parameter(torch.randn(width))
        self.head = CodeHead(width, head_width, books)

    def tokens(self, codes: Tensor, visible: Tensor) -> Tensor:
        """Return (B, N, gesture_width) of codes (B, N, Q), of which (B, N) are visible."""
        shown = self.project(pick_entries(codes, self.entries).sum(dim=-2))
        return torch.where(visible[..., None], shown, self.hidden) + self.name

    def logits(self, states: Tensor, codes: Tensor) -> Tensor:
        """Return (B, N, Q, K) from states (B, N, gesture_width) and true codes (B, N, Q)."""
        return self.head(states, pick_entries(codes, self.entries))


class CodeHead(nn.Module):
    """Logits of the codes of one part: one small network for all layers, with a vector and an output map for each.

    Args:
        width: of the tokens' states.
        head_width: of the network.
        codebooks: (Q, K, C), for their sizes.
    """

    def __init__(self, width: int, head_width: int, codebooks: Tensor) -> None:
        super().__init__()
        num_codebooks, codebook_size, code_dim = codebooks.shape
        self.from_state = nn.Linear(width, head_width)
        self.from_entries = nn.Linear(code_dim, head_width, bias=False)
        self.layer = nn.Parameter(torch.randn(num_codebooks, head_width))
        self.inner = nn.Sequential(
            nn.LayerNorm(head_width),
            nn.Linear(head_width, 2 * head_width),
            nn.GELU(),
            nn.Linear(2 * head_width, head_width),
        )
        self.norm = nn.LayerNorm(head_width)
        # So small that all codes are about equally likely at first: the loss starts at ln K.
        self.output = nn.Parameter(0.25 * head_width**-0.5 * torch.randn(num_codebooks, head_width, codebook_size))
        self.bias = nn.Parameter(torch.zeros(num_codebooks, codebook_size))

    def forward(self, state: Tensor, entries: Tensor) -> Tensor:
        """Return the logits of all layers, (B, N, Q, K).

        Args:
            state: (B, N, width).
            entries: (B, N, Q, C) what each true code adds; layer q sees the sum of those before it.
        """
        before = nn.functional.pad(entries[:, :, :-1].cumsum(dim=2), (0, 0, 1, 0))
        hidden = self._hidden(self.from_state(state)[:, :, None] + self.from_entries(before) + self.layer)
        return torch.einsum("bnqh,qhk->bnqk", hidden, self.output) + self.bias

    def logits_of(self, layer: int, state: Tensor, before: Tensor) -> Tensor:
        """Return the logits of one layer, (..., K).

        Args:
            layer: 0 to Q - 1.
            state: (..., width).
            before: (..., C) sum of the entries of the layers before it.
        """
        hidden = self._hidden(self.from_state(state) + self.from_entries(before) + self.layer[layer])
        return hidden @ self.output[layer] + self.bias[layer]

    def _hidden(self, x: Tensor) -> Tensor:
        return self.norm(x + self.inner(x))

"""Residual vector quantizer with codebooks that follow moving averages of the vectors assigned to them."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxlab.errors import UserError, check_types
from voxlab.models.tokenizer.distance import find_nearest
from voxlab.models.tokenizer.kmeans import cluster
from voxlab.models.tokenizer.ranks import gather_from_ranks, rank_and_world, send_from_first, sum_over_ranks
from voxlab.progress import track

_LEAST_COUNT = 1e-5
_FRESH_STD = 0.3  # about that of the latents of fresh networks: most entries then get a share of them


@dataclass(frozen=True, kw_only=True)
class QuantizerSettings:
    """Shape and update rule of a `ResidualQuantizer`.

    Attributes:
        num_codebooks: codebooks Q, each coding what the ones before left over.
        codebook_size: entries per codebook K, at least 2.
        codebook_dim: width of the entries; None is that of the latents, otherwise two 1x1 projections surround the
            quantizer.
        decay: share of the old average that a training step keeps, 0..1.
        revive_every: training steps between looks for dead entries.
        revive_ratio: an entry is dead when it is used less than this share of the mean use.

    Raises:
        UserError: a value out of range.
    """

    num_codebooks: int = 8
    codebook_size: int = 1024
    codebook_dim: int | None = None
    decay: float = 0.99
    revive_every: int = 5
    revive_ratio: float = 0.1

    def __post_init__(self) -> None:
        check_types(self, "codec.architecture.quantizer.")
        ranges = {
            "num_codebooks": self.num_codebooks >= 1,
            "codebook_size": self.codebook_size >= 2,
            "codebook_dim": self.codebook_dim is None or self.codebook_dim >= 1,
            "decay": 0 <= self.decay < 1,
            "revive_every": self.revive_every >= 1,
            "revive_ratio": 0 <= self.revive_ratio < 1,
        }
        for name in (name for name, fits in ranges.items() if not fits):
            raise UserError(f"codec.architecture.quantizer.{name}={getattr(self, name)} is out of range")

    def build(self, dim: int) -> "ResidualQuantizer":
        """Make the quantizer of latents that are `dim` wide."""
        return ResidualQuantizer(dim, **asdict(self))


@dataclass(frozen=True)
class Quantized:
    """Result of a quantizer's forward pass.

    Attributes:
        output: (B, D, T) sum of the chosen entries, with the gradient of the input; zero at masked frames.
        codes: (B, Q, T) int64 of all codebooks, also those that an item doesn't use; zero at masked frames.
        commitment: mean squared distance of the chosen entries to what they stand for, over D, the valid frames and
            the codebooks that each item uses; in training normalised over all ranks.
        relative_error: (Q,) energy left over after each codebook, as a share of the latents'; NaN for a codebook that
            no item uses.
        revived: (Q,) int64, dead entries that this step replaced.
    """

    output: Tensor
    codes: Tensor
    commitment: Tensor
    relative_error: Tensor
    revived: Tensor


class ResidualQuantizer(nn.Module):
    """Q codebooks of K entries; each codes what the ones before it left over of a D-dimensional latent.

    An entry is the quotient of two moving averages: the sum and the number of the vectors assigned to it. A training
    step moves both by the batch of all ranks together, so that ranks with parts of a batch equal one rank with all of
    it. Entries that are hardly used restart at vectors of the batch. Everything is computed in the precision of the
    buffers, float32 unless the module was converted, whatever autocast says.

    Fresh codebooks are random; `initialize` fits them to latents.

    Source: van den Oord et al. 2017 (moving averages), Zeghidour et al. 2021 (residual codebooks, dead entries).
    """

    counts: Tensor
    sums: Tensor
    steps: Tensor
    initialized: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_codebooks: int = 8,
        codebook_size: int = 1024,
        codebook_dim: int | None = None,
        decay: float = 0.99,
        revive_every: int = 5,
        revive_ratio: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.decay, self.revive_every, self.revive_ratio = decay, revive_every, revive_ratio
        width = codebook_dim or dim
        self.project_in = nn.Conv1d(dim, width, 1, bias=False) if codebook_dim else nn.Identity()
        self.project_out = nn.Conv1d(width, dim, 1, bias=False) if codebook_dim else nn.Identity()
        self.register_buffer("counts", torch.ones(num_codebooks, codebook_size))
        self.register_buffer("sums", _FRESH_STD * torch.randn(num_codebooks, codebook_size, width))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("initialized", torch.tensor(False))
        # `steps` on the host: reading it from a GPU would wait for the whole encoder at every step.
        self._host_steps: int | None = None

    @property
    def entries(self) -> Tensor:
        """The (Q, K, D) entries of all codebooks."""
        return self.sums / self.counts.clamp_min(_LEAST_COUNT)[..., None]

    def forward(
        self, z: Tensor, mask: Tensor, num_codebooks: Tensor | None = None, *, generator_seed: int = 0
    ) -> Quantized:
        """Quantize latents; in training mode also update the codebooks, together with all other ranks.

        In training mode every rank has to call this equally often; in evaluation mode ranks don't meet.

        Args:
            z: (B, D, T).
            mask: (B, T) bool, True = valid; the rest has no influence.
            num_codebooks: (B,) codebooks that each item uses; 0 passes its latents on as they are; None uses all.
                Codebooks learn only from items that use them, and keep their averages in a step without such items.
            generator_seed: of the vectors that dead entries restart at, together with `steps`.
        """
        every = torch.full((len(z),), self.num_codebooks, device=z.device)
        limits = (every if num_codebooks is None else num_codebooks.to(z.device))[:, None]
        levels = torch.arange(self.num_codebooks, device=z.device)
        used = (mask & (levels[:, None, None] < limits)).flatten(1)
        with torch.autocast(z.device.type, enabled=False):
            vectors = self._project(z)
            codes, residuals, chosen = self._assign(vectors, used)
            commitment, relative_error = self._errors(residuals, used)
            revived = torch.zeros_like(levels)
            if self.training:
                revived = self._learn([residual.detach() for residual in residuals[:-1]], codes, used, generator_seed)
            chosen = torch.where((limits > 0).expand_as(mask).flatten()[:, None], chosen, vectors.detach())
            output = vectors + (chosen - vectors).detach()
            output = self.project_out(output.unflatten(0, mask.shape).transpose(1, 2).masked_fill(~mask[:, None], 0))
        codes = codes.unflatten(1, mask.shape).transpose(0, 1).masked_fill(~mask[:, None], 0)
        return Quantized(output, codes, commitment, relative_error, revived)

    def _project(self, z: Tensor) -> Tensor:
        """Return latents (B, D, T) as the (B * T, D') vectors that the codebooks see."""
        with torch.autocast(z.device.type, enabled=False):
            return self.project_in(z.to(self.sums.dtype)).transpose(1, 2).flatten(0, 1)

    def _assign(self, vectors: Tensor, used: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the codes (Q, V), what each codebook gets and the last one leaves, and the sum of used entries."""
        codes, residuals, chosen = [], [vectors], torch.zeros_like(vectors)
        for entries, active in zip(self.entries, used, strict=True):
            codes.append(find_nearest(residuals[-1].detach(), entries))
            picked = entries[codes[-1]]
            residuals.append(residuals[-1] - picked)
            chosen = chosen + picked * active[:, None]
        return torch.stack(codes), residuals, chosen

    def _errors(self, residuals: list[Tensor], used: Tensor) -> tuple[Tensor, Tensor]:
        """Return the commitment and the relative error per codebook."""
        left = torch.stack(
            [(residual.square().sum(1) * active).sum() for residual, active in zip(residuals[1:], used, strict=True)]
        )
        whole = (residuals[0].detach().square().sum(1) * used).sum(1)
        tally = torch.stack([left.detach(), whole, used.sum(1).to(left.dtype)])
        world = 1
        if self.training:
            sum_over_ranks(tally)
            world = rank_and_world()[1]
        # Ranks average their gradients, so each divides by the mean number of vectors per rank.
        share = tally[2].sum().clamp_min(1) / world * residuals[0].shape[1]
        return left.sum() / share, tally[0] / tally[1]

    @torch.no_grad()
    def _learn(self, residuals: list[Tensor], codes: Tensor, used: Tensor, seed: int) -> Tensor:
        """Move the averages by the batch of all ranks, revive when it is time; return the (Q,) revived entries."""
        # A batch that overflowed must not stay in the averages after its step was skipped; the loss shows it anyway.
        used = used & residuals[0].isfinite().all(dim=1)
        # The sums of the batch, and in the last column the counts: one tensor, one reduction.
        batch = self.sums.new_zeros(*self.counts.shape, self.sums.shape[2] + 1)
        for book, index, residual, active in zip(batch, codes, residuals, used, strict=True):
            rows = nn.functional.pad(residual, (0, 1), value=1.0)
            book.index_add_(0, index, rows.masked_fill(~active[:, None], 0))
        sum_over_ranks(batch)
        keep = 1 - (1 - self.decay) * (batch[..., -1].sum(1) > 0).to(batch.dtype)
        self.counts.mul_(keep[:, None]).add_(batch[..., -1], alpha=1 - self.decay)
        self.sums.mul_(keep[:, None, None]).add_(batch[..., :-1], alpha=1 - self.decay)
        step = self._next_step()
        if step % self.revive_every:
            return torch.zeros_like(codes[:, 0])
        return self._revive(residuals, used, seed * 2654435761 + step)

    def _revive(self, residuals: list[Tensor], used: Tensor, seed: int) -> Tensor:
        """Restart dead entries at different random vectors of the batch of all ranks; return how many, (Q,)."""
        per_rank = gather_from_ranks(used.sum(1))
        total = per_rank.sum(0)[:, None]
        mean = self.counts.mean(1, keepdim=True)
        dead = self.counts < self.revive_ratio * mean
        order = dead.cumsum(1) - 1
        dead &= order < total
        position = _spread(order, dead.sum(1, keepdim=True), total, seed)
        rank = rank_and_world()[0]
        local = position - per_rank[:rank].sum(0)[:, None]
        own = dead & (local >= 0) & (local < per_rank[rank][:, None])
        row = torch.searchsorted(used.cumsum(1), local.clamp_min(0) + 1).clamp_max(used.shape[1] - 1)
        found = torch.stack([residual[rows] for residual, rows in zip(residuals, row, strict=True)])
        found.masked_fill_(~own[..., None], 0)
        sum_over_ranks(found)
        self.sums.copy_(torch.where(dead[..., None], mean[..., None] * found, self.sums))
        self.counts.copy_(torch.where(dead, mean, self.counts))
        return dead.sum(1)

    def _next_step(self) -> int:
        """Count a training step; return its number, from 1 on."""
        self._host_steps = (int(self.steps) if self._host_steps is None else self._host_steps) + 1
        self.steps.fill_(self._host_steps)
        return self._host_steps

    def _load_from_state_dict(self, *args: Any, **settings: Any) -> None:
        super()._load_from_state_dict(*args, **settings)
        self._host_steps = None

    @torch.no_grad()
    def initialize(self, pool: Tensor, vectors_per_step: int, seed: int) -> None:
        """Fit all codebooks to a pool of latents, one after the other; every rank has to call this.

        Args:
            pool: (P, D) latents of all ranks, the more the better (16 per entry at least); rank 0's is used.
            vectors_per_step: valid latents of all ranks in one training step. The averages start at that scale, or
                else dead entries would look alive until the start has faded.
            seed: of the random draws.

        Raises:
            ValueError: the pool is empty, of another width, or holds numbers that aren't finite.
        """
        if pool.dim() != 2 or not len(pool) or not bool(pool.isfinite().all()):
            raise ValueError(
                f"a pool of shape {tuple(pool.shape)} cannot start codebooks; needs (P, D), P >= 1, finite"
            )
        if rank_and_world()[0] == 0:
            generator = torch.Generator().manual_seed(seed)
            residual = self._project(pool.to(self.sums.device).T[None])
            books = list(zip(self.counts, self.sums, strict=True))
            for counts, sums in track(books, "k-means", "codebooks"):
                centers, nearest = cluster(residual, self.codebook_size, generator)
                members = torch.bincount(nearest, minlength=self.codebook_size).clamp_min(1)
                counts.copy_(members * (vectors_per_step / len(pool)))
                sums.copy_(centers * counts[:, None])
                residual = residual - centers[nearest]
        send_from_first(self.counts, self.sums)
        self.initialized.fill_(True)

    @torch.no_grad()
    def encode(self, z: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Return the codes of the first `num_codebooks` (default all): z (B, D, T) -> (B, q, T) int64.

        Raises:
            ValueError: num_codebooks is not in 1..Q.
        """
        count = self._checked_count(self.num_codebooks if num_codebooks is None else num_codebooks)
        with torch.autocast(z.device.type, enabled=False):
            vectors, codes = self._project(z), []
            for entries in self.entries[:count]:
                codes.append(find_nearest(vectors, entries))
                vectors = vectors - entries[codes[-1]]
        return torch.stack(codes).unflatten(1, (z.shape[0], z.shape[2])).transpose(0, 1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the latents of codes (B, q, T) of the first q codebooks, 1 <= q <= Q: (B, D, T).

        Raises:
            ValueError: not integers of that shape, or a code outside 0..K-1; says which and where.
        """
        if codes.dim() != 3 or codes.is_floating_point() or codes.dtype == torch.bool:
            raise ValueError(f"codes are {codes.dtype} of shape {tuple(codes.shape)}; needed are integers (B, q, T)")
        count, codes = self._checked_count(codes.shape[1]), codes.long()
        bad = ((codes < 0) | (codes >= self.codebook_size)).nonzero()
        if len(bad):
            item, codebook, frame = bad[0].tolist()
            raise ValueError(
                f"item {item}, codebook {codebook}, frame {frame}: code {int(codes[item, codebook, frame])} is out of "
                f"range; allowed 0..{self.codebook_size - 1}"
            )
        with torch.autocast(codes.device.type, enabled=False):
            layers = zip(self.entries[:count], codes.unbind(1), strict=True)
            return self.project_out(torch.stack([entries[index] for entries, index in layers]).sum(0).transpose(1, 2))

    def _checked_count(self, count: int) -> int:
        if not 1 <= count <= self.num_codebooks:
            raise ValueError(f"got {count} codebooks; allowed 1..{self.num_codebooks}")
        return count


def _spread(order: Tensor, count: Tensor, total: Tensor, seed: int) -> Tensor:
    """Draw for entries number 0..count-1 of each codebook different positions below `total`, one from each stretch.

    Args:
        order: (Q, K) number of each entry.
        count: (Q, 1), at most `total`.
        total: (Q, 1).
        seed: same on all ranks.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    draws = torch.randint(2**31, (order.shape[0], order.shape[1] + 1), generator=generator).to(order.device)
    stretch = total // count.clamp_min(1)
    return (draws[:, :1] + order * stretch + draws[:, 1:] % stretch.clamp_min(1)) % total.clamp_min(1)

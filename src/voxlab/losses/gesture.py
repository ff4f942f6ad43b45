"""Losses of motion codes, and of the motion that a frozen decoder makes of what is predicted.

All return sums with their counts, so that ranks with unequal shares can be weighted exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from voxlab.errors import UserError, check_types


@dataclass(frozen=True, kw_only=True)
class A2gLoss:
    """Weights of the terms of task=a2g.

    Args:
        ce: cross entropy of the hidden codes.
        rec: smooth L1 of the decoded motion.
        velocity: L1 of its first differences.
        acceleration: L1 of its second differences.
        label_smoothing: share of the target that is spread over all codes, 0 to below 1.
        straight_through: decode the most likely codes, with the gradient of the expected ones.

    Raises:
        UserError: a value is out of range, or no term has a weight.
    """

    ce: float = 1.0
    rec: float = 0.1
    velocity: float = 0.1
    acceleration: float = 0.1
    label_smoothing: float = 0.05
    straight_through: bool = False

    def __post_init__(self) -> None:
        check_types(self, "loss.")
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise UserError(f"loss.{field.name}={getattr(self, field.name)}: give a number of 0 or more.")
        if self.label_smoothing >= 1:
            raise UserError(f"loss.label_smoothing={self.label_smoothing}: give a share below 1.")
        if not any((self.ce, self.rec, self.velocity, self.acceleration)):
            raise UserError("all of loss.ce, loss.rec, loss.velocity and loss.acceleration are 0: nothing to learn.")


class Mean(NamedTuple):
    """A mean that isn't divided yet.

    Attributes:
        total: sum, a scalar with its graph.
        count: of what, a scalar.
    """

    total: Tensor
    count: Tensor

    @property
    def value(self) -> Tensor:
        """The mean; 0 where there is nothing."""
        return self.total / self.count.clamp_min(1)


def code_cross_entropy(
    logits: Tensor,
    codes: Tensor,
    masked: Tensor,
    *,
    label_smoothing: float = 0.0,
    layer_weights: Sequence[float] | None = None,
) -> Mean:
    """Return the cross entropy of the hidden tokens, weighted over the residual layers.

    Args:
        logits: (B, N, Q, K).
        codes: (B, N, Q) int64, the true ones.
        masked: (B, N) bool, True = hidden from the network and valid: these count.
        label_smoothing: share of the target that is spread over all codes.
        layer_weights: of the Q layers; None: 2^(-q / 2). Divided by their sum.

    Returns:
        its sum over tokens and their number; at first the value is about ln K.
    """
    weights = [2 ** (-layer / 2) for layer in range(codes.shape[2])] if layer_weights is None else layer_weights
    scale = logits.new_tensor(weights, dtype=torch.float32)
    losses = F.cross_entropy(
        logits.float().flatten(0, 2), codes.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    per_token = (losses.unflatten(0, codes.shape) * scale / scale.sum()).sum(dim=2)
    return Mean(per_token.masked_fill(~masked, 0).sum(), masked.sum())


@torch.no_grad()
def code_accuracy(logits: Tensor, codes: Tensor, masked: Tensor) -> dict[str, Mean]:
    """Return how many of the hidden codes are the most likely one (`top1`) or among the five (`top5`) most likely.

    Args:
        logits: (B, N, Q, K).
        codes: (B, N, Q) int64.
        masked: (B, N) bool, True = counts.
    """
    best = logits.topk(min(5, logits.shape[-1]), dim=-1).indices == codes[..., None]
    count = masked.sum() * codes.shape[2]
    hits = best & masked[..., None, None]
    return {"top1": Mean(hits[..., 0].sum(), count), "top5": Mean(hits.sum(), count)}


def soft_latents(logits: Tensor, codebooks: Tensor, straight_through: bool = False) -> Tensor:
    """Return the latents that a decoder is expected to get, differentiable in the logits.

    Args:
        logits: (B, N, Q, K).
        codebooks: (Q, K, C).
        straight_through: give the sum of the most likely entries, with the gradient of the expected ones.

    Returns:
        (B, N, C) float32.
    """
    expected = torch.einsum("bnqk,qkc->bnc", logits.float().softmax(dim=-1), codebooks.float())
    if not straight_through:
        return expected
    layers = torch.arange(len(codebooks), device=codebooks.device)
    chosen = codebooks[layers, logits.argmax(dim=-1)].float().sum(dim=2)
    return expected + (chosen - expected).detach()


def motion_losses(decoded: Tensor, target: Tensor, mask: Tensor) -> dict[str, Mean]:
    """Compare decoded with true motion, and their first and second differences over time.

    Args:
        decoded: (B, T, D) normalised.
        target: (B, T, D) normalised.
        mask: (B, T) bool, True = valid.

    Returns:
        `rec`: smooth L1; `velocity`, `acceleration`: L1 of the differences, between valid frames only.
    """
    decoded, target = decoded.float(), target.float()
    first, second = mask[:, 1:] & mask[:, :-1], mask[:, 2:] & mask[:, 1:-1] & mask[:, :-2]
    velocity, wanted = decoded.diff(dim=1), target.diff(dim=1)
    return {
        "rec": _mean(F.smooth_l1_loss(decoded, target, reduction="none"), mask),
        "velocity": _mean((velocity - wanted).abs(), first),
        "acceleration": _mean((velocity.diff(dim=1) - wanted.diff(dim=1)).abs(), second),
    }


def _mean(errors: Tensor, mask: Tensor) -> Mean:
    """Return the sum of errors (B, T, D) where (B, T) is valid, and the number of them."""
    return Mean(errors.masked_fill(~mask[..., None], 0).sum(), mask.sum() * errors.shape[2])

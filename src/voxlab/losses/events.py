"""Losses of rare-event prediction on frame logits: weighted cross entropy, focal loss, focal loss with prior weights.

All are computed from log-sigmoids in float32 (or float64), so values and gradients stay finite for any logit, any
gamma and under bf16/fp16. Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", section 3.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from voxlab.errors import UserError

_MOMENTUM = 0.99  # of the running prior
_SMALLEST = 1e-6  # class weight that the initial bias reckons with, so that it stays finite


class EventLoss(nn.Module):
    """Base: class weights, and the weighted sum over valid frames.

    Attributes:
        reduction: "mean": a training step divides the sum by the count; "sum": it does not.
        hard: True where targets must be 0 or 1.
        class_weights: (2,) float64, of negative and positive frames; known after `prepare`.
    """

    reduction = "mean"
    hard = False
    class_weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("class_weights", torch.ones(2, dtype=torch.float64))

    def prepare(self, num_pos: float, num_neg: float) -> None:
        """Take the numbers of positive and negative training frames, from which class weights may follow.

        Raises:
            UserError: the loss needs both classes and one is absent.
        """
        raise NotImplementedError

    def per_frame(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each frame; all three have the same shape, float32 or float64."""
        raise NotImplementedError

    def observe(self, num_pos: Tensor, num_frames: Tensor) -> None:
        """See the weighted numbers of positive and of all (at least one) valid frames of a batch, over all ranks."""

    def initial_bias(self, prior: float) -> float:
        """Return the constant logit that a calibrated loss with these class weights starts from.

        Args:
            prior: share of positive frames, 0 < prior < 1.
        """
        negative, positive = self.class_weights.clamp(min=_SMALLEST).tolist()
        return math.log(prior / (1 - prior)) + math.log(positive / negative)

    def forward(self, logits: Tensor, y: Tensor, weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of the valid frames' losses, and the sum of their weights.

        Args:
            logits: (...) any float type.
            y: (...) targets, 0 or 1 (cross entropy: from 0 to 1).
            weight: (...) importance of each frame, 0 or more.
            mask: (...) bool, True = valid; the others get no gradient, whatever they hold.

        Returns:
            two scalars, float32 (float64 for float64 logits).
        """
        dtype = torch.promote_types(logits.dtype, torch.float32)
        with torch.autocast(logits.device.type, enabled=False):
            safe = torch.where(mask, logits, 0).to(dtype)
            weights = torch.where(mask, weight, 0).to(dtype)
            losses = self.per_frame(safe, torch.where(mask, y, 0).to(dtype))
            return (weights * losses).sum(), weights.sum()


class BinaryCrossEntropy(EventLoss):
    """-[w y log p + (1 - y) log(1 - p)].

    Args:
        pos_weight: w; "auto": negative over positive frames of the training split.
        pos_weight_max: largest w that "auto" takes; None: no limit.

    Raises:
        UserError: a value is out of range.
    """

    def __init__(self, *, pos_weight: float | str = "auto", pos_weight_max: float | None = None) -> None:
        super().__init__()
        if pos_weight != "auto":
            _check_positive("pos_weight", pos_weight, " or auto (negative over positive frames)")
        if pos_weight_max is not None:
            _check_positive("pos_weight_max", pos_weight_max, " or null (no limit)")
        self.pos_weight, self.pos_weight_max = pos_weight, pos_weight_max

    def prepare(self, num_pos: float, num_neg: float) -> None:
        """Set w."""
        weight = _ratio(num_pos, num_neg) if self.pos_weight == "auto" else float(self.pos_weight)
        if self.pos_weight == "auto" and self.pos_weight_max is not None:
            weight = min(weight, self.pos_weight_max)
        self.class_weights[1] = weight

    def per_frame(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the cross entropy of each frame."""
        negative, positive = self.class_weights.to(logits.dtype)
        return -(positive * y * logsigmoid(logits) + negative * (1 - y) * logsigmoid(-logits))


class Focal(EventLoss):
    """-a_t (1 - p_t)^gamma log p_t with a_t = alpha for positive frames, 1 - alpha for negative ones.

    Note that alpha = 0.25 gives a positive frame a third of the weight of a negative one.

    Args:
        alpha: weight of positive frames, 0 to 1.
        gamma: how much easy frames lose, 0 or more; 0: weighted cross entropy.
        reduction: "mean" | "sum": the gradient then grows with the batch.

    Raises:
        UserError: a value is out of range.
    """

    hard = True

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__()
        if not _is_number(alpha) or not 0 <= alpha <= 1:
            raise UserError(f"loss.alpha={alpha!r}: give a number from 0 to 1, the weight of positive frames.")
        _check_gamma(gamma)
        if reduction not in ("mean", "sum"):
            raise UserError(f"loss.reduction={reduction!r}: choose mean or sum.")
        self.gamma, self.reduction = float(gamma), reduction
        self.class_weights.copy_(torch.tensor([1 - alpha, alpha], dtype=torch.float64))

    def prepare(self, num_pos: float, num_neg: float) -> None:
        """Nothing follows from the numbers of frames."""

    def per_frame(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the focal loss of each frame."""
        return focal(logits, y, self.class_weights, self.gamma)


class AdaptiveFocal(EventLoss):
    """Focal loss with alpha = share of negative frames, so that both classes weigh the same in total.

    Args:
        gamma: as in `Focal`.
        adapt: "none": the share of the training split, for the whole run | "ema": a running average over batches.

    Raises:
        UserError: a value is out of range.
    """

    hard = True

    def __init__(self, *, gamma: float = 2.0, adapt: str = "none") -> None:
        super().__init__()
        _check_gamma(gamma)
        if adapt not in ("none", "ema"):
            raise UserError(f"loss.adapt={adapt!r}: choose none or ema.")
        self.gamma, self.adapt = float(gamma), adapt

    def prepare(self, num_pos: float, num_neg: float) -> None:
        """Set alpha."""
        share = 1 / (1 + _ratio(num_pos, num_neg))
        self.class_weights.copy_(torch.tensor([share, 1 - share], dtype=torch.float64))

    def observe(self, num_pos: Tensor, num_frames: Tensor) -> None:
        """Move alpha by a hundredth towards this batch's share; batches of one class move it too."""
        if self.adapt == "ema":
            share = (num_pos / num_frames).to(self.class_weights)
            self.class_weights.lerp_(torch.stack([share, 1 - share]), 1 - _MOMENTUM)

    def per_frame(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the focal loss of each frame."""
        return focal(logits, y, self.class_weights, self.gamma)


def focal(logits: Tensor, y: Tensor, class_weights: Tensor, gamma: float) -> Tensor:
    """Return the focal loss of each frame, (...) like `logits`.

    Args:
        logits: (...) float32 or float64.
        y: (...) 0 or 1, same type.
        class_weights: (2,) of negative and positive frames.
        gamma: 0 or more.
    """
    negative, positive = class_weights.to(logits.dtype)
    margin = (2 * y - 1) * logits
    # (1 - p)^gamma as exp(gamma log(1 - p)): a power of a rounded 1 - p has no gradient, or an infinite one.
    modulation = torch.exp(gamma * logsigmoid(-margin))
    return -torch.where(y > 0.5, positive, negative) * modulation * logsigmoid(margin)


def _ratio(num_pos: float, num_neg: float) -> float:
    """Return negative over positive frames."""
    if num_pos <= 0 or num_neg <= 0:
        raise UserError(
            f"the training frames are {num_pos:g} positive and {num_neg:g} negative: this loss weighs both classes by "
            "their numbers. Check shift and labels.*, or give loss.pos_weight as a number."
        )
    return num_neg / num_pos


def _check_gamma(gamma: float) -> None:
    if not _is_number(gamma) or not 0 <= gamma < math.inf:
        raise UserError(f"loss.gamma={gamma!r}: give a number of 0 or more, for example 2.")


def _check_positive(name: str, value: float | str, other: str) -> None:
    if not _is_number(value) or not 0 < float(value) < math.inf:
        raise UserError(f"loss.{name}={value!r}: give a number above 0{other}.")


def _is_number(value: float | str) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

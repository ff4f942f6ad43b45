"""Optimisers of the training tasks: plain settings that build a torch optimiser, learning rates as functions of a step.

No scheduler objects: a resumed run computes the same rate from the same step.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from voxlab.errors import UserError


class Schedule(Protocol):
    """What a training loop needs: an optimiser, and its learning rate at each step."""

    @property
    def lr(self) -> float:
        """Highest learning rate."""
        ...

    def build(self, modules: Iterable[nn.Module], *, fused: bool) -> torch.optim.Optimizer:
        """Return the optimiser of all trainable parameters of some modules."""
        ...

    def rate(self, step: int, max_steps: int, scores: Sequence[float] = ()) -> float:
        """Return the learning rate of a step, given the scores of the validations before it (higher is better)."""
        ...


@dataclass(frozen=True, kw_only=True)
class AdamWCosine:
    """AdamW with a linear warm-up and a cosine to the last step.

    Args:
        lr: highest learning rate.
        final_lr: that of the last step.
        warmup_steps: steps in which it rises; at most a tenth of the run.
        betas: decay of the running mean and of the running mean square, 0 to 1.
        weight_decay: on matrices and kernels, not on vectors (biases, norms, activations).

    Raises:
        UserError: a value is no number, or out of range.
    """

    lr: float = 1e-4
    final_lr: float = 1e-6
    warmup_steps: int = 1000
    betas: Sequence[float] = (0.8, 0.99)
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name in ("lr", "final_lr", "warmup_steps", "weight_decay"):
            value = getattr(self, name)
            _check_number(name, value)
        _check_betas(self.betas)

    def build(self, modules: Iterable[nn.Module], *, fused: bool) -> torch.optim.AdamW:
        """Return the optimiser of all trainable parameters of some modules.

        Args:
            modules: their parameters are taken in order.
            fused: one kernel for all of them; does not go with a gradient scaler (16-mixed).
        """
        return build_adamw(self, modules, fused=fused)

    def rate(self, step: int, max_steps: int, scores: Sequence[float] = ()) -> float:
        """Return the learning rate of step 0 ... max_steps - 1."""
        warmup = min(self.warmup_steps, max_steps // 10)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        position = (step - warmup) / max(1, max_steps - 1 - warmup)
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * min(1.0, position))) / 2


@dataclass(frozen=True, kw_only=True)
class AdamWPlateau:
    """AdamW whose learning rate falls when validation does not improve.

    Args:
        lr: at the start.
        factor: what it is multiplied by, between 0 and 1.
        patience: it falls after more than so many validations without a better score.
        warmup_steps: steps in which it rises; at most a tenth of the run.
        betas: decay of the running mean and of the running mean square, 0 to 1.
        weight_decay: on matrices and kernels, not on vectors (biases, norms, activations).

    Raises:
        UserError: a value is no number, or out of range.
    """

    lr: float = 1e-4
    factor: float = 0.5
    patience: int = 3
    warmup_steps: int = 0
    betas: Sequence[float] = (0.9, 0.999)
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        for name in ("lr", "factor", "patience", "warmup_steps", "weight_decay"):
            _check_number(name, getattr(self, name))
        if not 0 < self.factor < 1:
            raise UserError(f"optim.factor={self.factor}: give a number between 0 and 1, for example 0.5.")
        _check_betas(self.betas)

    def build(self, modules: Iterable[nn.Module], *, fused: bool) -> torch.optim.AdamW:
        """Return the optimiser of all trainable parameters of some modules; arguments as for `AdamWCosine`."""
        return build_adamw(self, modules, fused=fused)

    def rate(self, step: int, max_steps: int, scores: Sequence[float] = ()) -> float:
        """Return the learning rate of a step after some validations (higher scores are better)."""
        warmup = min(self.warmup_steps, max_steps // 10)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        rate, best, waited = self.lr, -math.inf, 0
        for score in scores:
            best, waited = (score, 0) if score > best else (best, waited + 1)
            if waited > self.patience:
                rate, waited = rate * self.factor, 0
        return rate


@dataclass(frozen=True, kw_only=True)
class AdamWSteps:
    """AdamW whose learning rate rises over the first steps, stays, and falls once.

    Args:
        lr: after the warm-up.
        drop_step: from this step on it is lower.
        factor: what it is multiplied by then, between 0 and 1.
        warmup_steps: steps in which it rises; at most a tenth of the run.
        betas: decay of the running mean and of the running mean square, 0 to 1.
        weight_decay: on matrices and kernels, not on vectors (biases, norms, activations).

    Raises:
        UserError: a value is no number, or out of range.
    """

    lr: float = 2e-4
    drop_step: int = 200_000
    factor: float = 0.05
    warmup_steps: int = 400
    betas: Sequence[float] = (0.9, 0.99)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("lr", "drop_step", "factor", "warmup_steps", "weight_decay"):
            _check_number(name, getattr(self, name))
        if not 0 < self.factor < 1:
            raise UserError(f"optim.factor={self.factor}: give a number between 0 and 1, for example 0.05.")
        _check_betas(self.betas)

    def build(self, modules: Iterable[nn.Module], *, fused: bool) -> torch.optim.AdamW:
        """Return the optimiser of all trainable parameters of some modules; arguments as for `AdamWCosine`."""
        return build_adamw(self, modules, fused=fused)

    def rate(self, step: int, max_steps: int, scores: Sequence[float] = ()) -> float:
        """Return the learning rate of step 0 ... max_steps - 1."""
        warmup = min(self.warmup_steps, max_steps // 10)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        return self.lr if step < self.drop_step else self.lr * self.factor


def build_adamw(
    settings: AdamWCosine | AdamWPlateau | AdamWSteps, modules: Iterable[nn.Module], *, fused: bool
) -> torch.optim.AdamW:
    """Return AdamW over all trainable parameters of some modules, without weight decay on vectors.

    Args:
        settings: learning rate, betas and weight decay.
        modules: their parameters are taken in order.
        fused: one kernel for all of them; does not go with a gradient scaler (16-mixed).
    """
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    vectors = [parameter for parameter in parameters if _is_vector(parameter)]
    vector_ids = {id(parameter) for parameter in vectors}
    kernels = [parameter for parameter in parameters if id(parameter) not in vector_ids]
    groups = [{"params": kernels, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    used = [group for group in groups if group["params"]]
    return torch.optim.AdamW(used, lr=settings.lr, betas=(settings.betas[0], settings.betas[1]), fused=fused)


def _is_vector(parameter: nn.Parameter) -> bool:
    """Tell biases, norms and gains, (C, 1, 1) and (1, C, 1) among them, from the matrix (1, C) of a linear layer."""
    is_row = parameter.dim() == 2 and parameter.shape[0] == 1
    return max(parameter.shape, default=1) == parameter.numel() and not is_row


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"optim.{name}={value!r}: give a number of 0 or more, for example 1.0e-4.")


def _check_betas(betas: Sequence[float]) -> None:
    numbers = isinstance(betas, list | tuple) and all(isinstance(beta, int | float) for beta in betas)
    if not numbers or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"optim.betas={betas!r}: give two numbers from 0 to below 1, for example '[0.8, 0.99]'.")

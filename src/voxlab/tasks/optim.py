"""Optimisers of the training tasks: plain settings that build a torch optimiser, learning rates as functions of a step.

No scheduler objects: a resumed run computes the same rate from the same step.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from voxlab.errors import UserError


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
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise UserError(f"optim.{name}={value!r}: give a number of 0 or more, for example 1.0e-4.")
        if isinstance(self.betas, str) or len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(
                f"optim.betas={self.betas!r}: give two numbers from 0 to below 1, for example '[0.8, 0.99]'."
            )

    def build(self, modules: Iterable[nn.Module], *, fused: bool) -> torch.optim.AdamW:
        """Return the optimiser of all trainable parameters of some modules.

        Args:
            modules: their parameters are taken in order.
            fused: one kernel for all of them; does not go with a gradient scaler (16-mixed).
        """
        parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
        # Vectors in disguise too: the gains of weight norm are (C, 1, 1), the slopes of Snake (1, C, 1).
        vectors = [parameter for parameter in parameters if max(parameter.shape, default=1) == parameter.numel()]
        vector_ids = {id(parameter) for parameter in vectors}
        kernels = [parameter for parameter in parameters if id(parameter) not in vector_ids]
        groups = [{"params": kernels, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        used = [group for group in groups if group["params"]]
        return torch.optim.AdamW(used, lr=self.lr, betas=(self.betas[0], self.betas[1]), fused=fused)

    def rate(self, step: int, max_steps: int) -> float:
        """Return the learning rate of step 0 ... max_steps - 1."""
        warmup = min(self.warmup_steps, max_steps // 10)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        position = (step - warmup) / max(1, max_steps - 1 - warmup)
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * min(1.0, position))) / 2

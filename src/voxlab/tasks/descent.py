"""One step down the gradient by hand, for Lightning modules with `rate`, `loop` and `step`, and exact clipping."""

from typing import Any

import torch
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.tasks.sharding import whole


def descend(module: Any, loss: Tensor) -> None:
    """Step the module's one optimiser at the module's own learning rate.

    Args:
        module: a LightningModule with manual optimisation.
        loss: scalar; DDP averages its gradients over ranks.
    """
    optimizer: Any = module.optimizers()
    for group in optimizer.param_groups:
        group["lr"] = module.rate
    optimizer.zero_grad()
    module.manual_backward(loss)
    optimizer.step()


def clip_gradient(module: Any, remedy: str) -> Tensor:
    """Clip the gradient of `module.model`, which is averaged over ranks by now, to `loop.gradient_clip_val`.

    Args:
        module: a LightningModule.
        remedy: what may help besides a lower learning rate, for the message.

    Returns:
        Its norm before, a scalar.

    Raises:
        UserError: the norm is not finite.
    """
    limit = float("inf") if module.loop.gradient_clip_val is None else module.loop.gradient_clip_val
    norm = whole(nn.utils.clip_grad_norm_(module.model.parameters(), limit))
    if module.trainer.precision != "16-mixed" and not bool(torch.isfinite(norm)):
        raise UserError(
            f"step {module.step}: the gradient has the norm {float(norm)}, with optim.lr={module.rate:.3g}. Lower "
            f"optim.lr, or {remedy}. checkpoints/last.ckpt, if there is one yet, is from before."
        )
    return norm.detach()

"""fit.solver=lbfgs: the loss over all training frames at once, to its minimum; exact and without learning rate.

For models without dropout that see single frames; meant for model=linear, where the minimum is the only one.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxlab.data.frame_blocks import LabelledView
from voxlab.errors import UserError
from voxlab.losses.events import EventLoss
from voxlab.models.laughter import LaughterModel
from voxlab.models.tokenizer.ranks import sum_over_ranks
from voxlab.parallel import Ranks
from voxlab.tasks.laughter.settings import Fit

log = logging.getLogger(__name__)

_FRAMES = 8192  # at once


def minimise(model: LaughterModel, loss: EventLoss, views: Sequence[LabelledView], fit: Fit, ranks: Ranks) -> float:
    """Minimise mean loss + l2 / 2 |output weights|^2; the model ends in evaluation mode.

    Collective: each rank reads its share of the views in each of up to `fit.solver_steps` iterations.

    Returns:
        The value at the end.

    Raises:
        UserError: the model is none that can be fitted like this, or the value is not finite.
    """
    if model.architecture.family != "linear":
        raise UserError(f"fit.solver=lbfgs goes with model=linear, not model={model.architecture.family}.")
    weight = torch.tensor([sum(float(view.weight[view.used()].sum(dtype=np.float64)) for view in views)])
    optimiser = torch.optim.LBFGS(
        model.head.parameters(), max_iter=fit.solver_steps, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )
    own = views[ranks.rank :: ranks.world]
    values: list[float] = []

    def closure() -> Tensor:
        optimiser.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for batch in _chunks(own, ranks.device):
            part = loss(model(batch["features"]), batch["y"], batch["weight"], batch["mask"])[0]
            part.backward()
            total += part.detach().double().cpu()
        sum_over_ranks(total)
        squares = model.head.output.weight.square().sum() * fit.l2 / 2
        for parameter in model.head.parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            sum_over_ranks(gradient)
            parameter.grad = gradient / float(weight)
        squares.backward()
        value = total.to(squares) / float(weight) + squares.detach()
        values.append(float(value))
        return value

    model.train().to(ranks.device)
    optimiser.step(closure)
    model.eval()
    if not np.isfinite(values[-1]):
        raise UserError(f"fit.solver=lbfgs: the loss is {values[-1]}. Keep fit.norm=standard, or raise fit.l2.")
    if ranks.is_first:
        log.info("L-BFGS: %d evaluations, loss %.6g -> %.6g", len(values), values[0], values[-1])
    return values[-1]


def _chunks(views: Sequence[LabelledView], device: str) -> Iterator[dict[str, Any]]:
    for view in views:
        for start in range(0, len(view.y), _FRAMES):
            part = slice(start, start + _FRAMES)
            used = view.used(part)
            if used.any():
                features = torch.from_numpy(np.asarray(view.features[part])[used]).to(device).float()
                y, weight = (torch.from_numpy(row[part][used]).to(device) for row in (view.y, view.weight))
                mask = torch.ones_like(y, dtype=torch.bool)
                yield {"features": features[:, None], "y": y[:, None], "weight": weight[:, None], "mask": mask[:, None]}

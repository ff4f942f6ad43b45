"""What a training run is made of, checked before anything heavy is imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from voxlab.errors import UserError
from voxlab.losses.events import EventLoss
from voxlab.models.laughter import Architecture
from voxlab.tasks.laughter.settings import Fit, Sampling
from voxlab.tasks.optim import Schedule
from voxlab.tasks.settings import Loop, read, read_loop


@dataclass(frozen=True)
class Chosen:
    """The settings of a training run, checked."""

    fit: Fit
    loop: Loop
    sampling: Sampling
    architecture: Architecture
    loss: EventLoss
    optim: Schedule


def read_settings(
    *, model: Any, loss: Any, optim: Any, trainer: partial[Any], fit: Mapping[str, Any], sampling: Mapping[str, Any]
) -> Chosen:
    """Check the settings of training; arguments as in `task.laughter`.

    Raises:
        UserError: a group is not chosen, or a value is out of range.
    """
    for name, value, option in (("model", model, "linear"), ("loss", loss, "bce"), ("optim", optim, "adamw_cosine")):
        if value is None:
            raise UserError(f"task=laughter needs a {name}: {name}={option}.")
    if not isinstance(loss, EventLoss) or not isinstance(model, Architecture):
        raise UserError(
            "task=laughter takes loss=bce, focal, focal_sum or adaptive_focal, and model=linear, ln_linear, "
            "linear_prior, mlp, tcn or gru."
        )
    chosen = Chosen(
        read(Fit, fit, "fit"), read_loop(trainer.keywords), read(Sampling, sampling, "sampling"), model, loss, optim
    )
    if chosen.fit.solver == "lbfgs" and model.family != "linear":
        raise UserError(f"fit.solver=lbfgs goes with model=linear, not model={model.family}.")
    return chosen

"""What checkpoints say besides weights, as plain values."""

from collections.abc import Mapping
from typing import Any

from voxlab.losses.events import EventLoss
from voxlab.models.laughter import LaughterModel, describe
from voxlab.tasks.laughter.predict import TASK


def contents(model: LaughterModel, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says besides weights: the task, the model's description, the record."""
    return {"task": TASK, "model": describe(model), **record}


def describe_loss(loss: EventLoss) -> dict[str, Any]:
    """Return a loss as plain values."""
    plain = {name: value for name, value in vars(loss).items() if isinstance(value, str | int | float)}
    settings = {name: value for name, value in plain.items() if not name.startswith("_") and name != "training"}
    negative, positive = loss.class_weights.tolist()
    return {"name": type(loss).__name__, **settings, "negative_weight": negative, "positive_weight": positive}

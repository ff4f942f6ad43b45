"""What checkpoints say besides weights, as plain values, and what a run says of itself at its start."""

from collections.abc import Mapping
from typing import Any

from voxlab.losses.events import EventLoss
from voxlab.models.laughter import LaughterModel, describe
from voxlab.tasks.laughter.predict import TASK

_SPLITS = ("train", "validation", "test")


def contents(model: LaughterModel, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says besides weights: the task, the model's description, the record."""
    return {"task": TASK, "model": describe(model), **record}


def describe_loss(loss: EventLoss) -> dict[str, Any]:
    """Return a loss as plain values."""
    plain = {name: value for name, value in vars(loss).items() if isinstance(value, str | int | float)}
    settings = {name: value for name, value in plain.items() if not name.startswith("_") and name != "training"}
    negative, positive = loss.class_weights.tolist()
    return {"name": type(loss).__name__, **settings, "negative_weight": negative, "positive_weight": positive}


def describe_facts(facts: Mapping[str, Any]) -> str:
    """Return the facts about a run in a line for the store, each split and the training; counts of 0 are left out."""
    lines: dict[str, list[str]] = {"store": [], **{split: [] for split in _SPLITS}, "run": []}
    for name, value in facts.items():
        split, _, rest = name.partition("_")
        place = "store" if name in ("store", "features") else split if split in _SPLITS else "run"
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        if place == "store":
            lines[place].append(text)
        elif value or place == "run":
            lines[place].append(f"{(rest if place == split else name).replace('_', ' ')} {text}")
    return "\n".join(f"  {place}: {', '.join(texts)}" for place, texts in lines.items() if texts)

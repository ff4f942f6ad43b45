"""Whether a run that goes on finds the same tokenizers, features and motion as it began with."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from voxlab.errors import UserError
from voxlab.storage import differences

_COMPARED = ("codecs", "features", "layout", "fps", "trans", "speakers", "model")
_TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}  # another machine may add in another order


def check_resumed(was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other material than that of the checkpoint.

    Args:
        was: record of the checkpoint, see `fit.make_record`.
        now: record of this run.

    Raises:
        UserError: lists every difference.
    """
    lines = differences({name: was[name] for name in _COMPARED}, {name: now[name] for name in _COMPARED})
    if was["words"] != now["words"]:
        lines.append(f"words: {len(was['words'])} of training -> {len(now['words'])}, not the same ones")
    if not lines:  # numbers follow from what is listed
        lines = [f"{name}: other numbers" for name in _changed(was, now)]
    if lines:
        listed = "\n  ".join(lines[:10])
        raise UserError(
            f"this run began with other tokenizers, features or motion (checkpoint -> now):\n  {listed}\n"
            "Put back those that it began with, or train in a new run folder."
        )


def _changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of mean and spread of motion and features that are not as they were."""
    old, new = ({"motion": record["statistics"], **record["moments"]} for record in (was, now))
    for name, numbers in new.items():
        for key in ("mean", "std"):
            if not torch.allclose(old[name][key], numbers[key], **_TOLERANCE):
                yield f"{key} of {name}"

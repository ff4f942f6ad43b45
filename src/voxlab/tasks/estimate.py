"""What a dry run says about time and disk: measured on a little of the very work, or why it could not be.

Every task that is run with dry_run=true ends its plan with the lines `disk` and `time` that are made here.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from voxlab.audio import Seconds
from voxlab.errors import UserError

log = logging.getLogger(__name__)
Item = TypeVar("Item")

_ENOUGH = 3.0  # seconds of measured work
_SCALES = (("days", 86_400.0, 172_800.0), ("hours", 3_600.0, 7_200.0), ("minutes", 60.0, 120.0), ("s", 1.0, 0.0))


def measure(work: Callable[[Sequence[Item]], float], items: Sequence[Item], device: str = "cpu") -> tuple[Seconds, int]:
    """Time work on the first item, then on the first 2, 4, 8, ... until that has taken a few seconds.

    What comes first is a warm-up, and what comes last is what counts: it fills the batches.

    Args:
        work: does a few items in memory; returns how much that was, such as seconds of audio.
        items: at least one.
        device: that the work is done on.

    Returns:
        seconds for each unit of what `work` returns, and on how many items that rests.

    Raises:
        ValueError: none of the items can be worked on.
    """
    work(items[:1])
    count, begun = min(2, len(items)), time.perf_counter()
    while True:
        start = time.perf_counter()
        amount = work(items[:count])
        wait_for(device)
        now = time.perf_counter()
        if now - begun > _ENOUGH or count == len(items):
            break
        count = min(2 * count, len(items))
    if amount <= 0:
        raise ValueError(f"the first {count} could not be worked on")
    return (now - start) / amount, count


def without_bar(trainer: partial[Any]) -> partial[Any]:
    """Return a trainer that shows no progress."""
    return partial(trainer.func, **{**trainer.keywords, "enable_progress_bar": False})


def wait_for(device: torch.device | str) -> None:
    """Wait until a device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def attempt(estimate: Callable[[], str]) -> str:
    """Return an estimate, or why there is none: weights or data that can't be used don't end a dry run."""
    try:
        return estimate()
    except (UserError, OSError, ValueError, ImportError) as error:
        return not_measured(str(error).partition("\n")[0])


def not_measured(reason: str) -> str:
    """Return what stands for an estimate that there isn't."""
    return f"not measured: {reason}"


def about(seconds: Seconds, basis: str) -> str:
    """Return an estimate with what it rests on.

    Args:
        seconds: of the whole work.
        basis: such as "3 steps measured".
    """
    return f"about {spell_duration(seconds)} ({basis})"


def spell_duration(seconds: Seconds) -> str:
    """Return seconds in the unit that suits them."""
    name, scale = next((name, scale) for name, scale, least in _SCALES if seconds >= least)
    return f"{seconds / scale:.{0 if seconds / scale >= 10 else 1}f} {name}"


def spell_rate(seconds: Seconds, unit: str) -> str:
    """Return how long one of something takes, or how many there are in a second."""
    return f"{1 / seconds:.3g} {unit}s/s" if seconds < 1 else f"{seconds:.3g} s a {unit}"


def spell_size(num_bytes: float) -> str:
    """Return bytes in the unit that suits them."""
    name, scale = next(((name, scale) for name, scale in (("GB", 1e9), ("MB", 1e6)) if num_bytes >= scale), ("kB", 1e3))
    return f"{num_bytes / scale:.3g} {name}"


def state_bytes(module: torch.nn.Module, optimizers: Iterable[Any]) -> int:
    """Return how large a checkpoint of a module in training is."""
    held = list(module.state_dict().values())
    held += [value for each in optimizers for state in each.state.values() for value in state.values()]
    return sum(value.numel() * value.element_size() for value in held if isinstance(value, torch.Tensor))

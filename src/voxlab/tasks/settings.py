"""What training tasks share of their settings: the loop, reading a node of the configuration, telling the plan."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from voxlab.errors import UserError, check_types

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What of the `trainer` group the training loop itself looks after; the rest goes to `lightning.Trainer`.

    Raises:
        UserError: a value is out of range.
    """

    max_epochs: int | None = 30
    max_steps: int = -1
    log_every_n_steps: int = 50
    gradient_clip_val: float | None = 1.0

    def __post_init__(self) -> None:
        check_types(self, "trainer.")
        if self.max_steps < 1 and (self.max_epochs is None or self.max_epochs < 1):
            raise UserError(f"trainer.max_epochs={self.max_epochs}: give 1 or more, or trainer.max_steps.")
        if self.log_every_n_steps < 1:
            raise UserError(f"trainer.log_every_n_steps={self.log_every_n_steps}: give 1 or more.")
        if self.gradient_clip_val is not None and not self.gradient_clip_val > 0:
            raise UserError(f"trainer.gradient_clip_val={self.gradient_clip_val}: give a number above 0, or null.")

    def steps(self, per_epoch: int) -> int:
        """Return the number of training steps, where an epoch has `per_epoch`."""
        limits = [self.max_steps] if self.max_steps > 0 else []
        return min([*limits, *([self.max_epochs * per_epoch] if self.max_epochs else [])])


def read(kind: type[Settings], values: Mapping[str, Any], node: str) -> Settings:
    """Return the settings of one node of the configuration.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{node}.{unknown[0]}: there is no such key. Known: {', '.join(known)}.")
    return kind(**values)


def read_loop(keys: Mapping[str, Any]) -> Loop:
    """Return what the loop itself looks after, out of the keys of the `trainer` group."""
    names = [field.name for field in fields(Loop)]
    return Loop(
        **{name: keys[name] for name in names if name in keys and (keys[name] is not None or name != "max_steps")}
    )


def log_facts(log: logging.Logger, facts: Mapping[str, Any]) -> None:
    """Log a line for each fact about a run."""
    texts = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in facts.items()}
    log.info("\n%s", "\n".join(f"  {name.replace('_', ' ')}: {value}" for name, value in texts.items()))

"""Errors that are the user's to fix: printed as one message, without a traceback, with an exit code of their own."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from enum import Enum
from typing import Any

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    type(None): "null",
}


class UserError(Exception):
    """A wrong setting, a missing file, a foreign folder: says what was found, what is allowed, what to type next."""

    exit_code = 2


class TooManyBadItems(UserError):
    """Bulk work ran to its end, but more items failed than `max_bad_fraction` allows."""

    exit_code = 3


class AuditFailed(UserError):
    """The audit looked at everything and found errors (or warnings, where `strict` asks for that).

    Attributes:
        outcome: what the stage tells besides (a `tasks.extract.stage.Outcome`): counts, warnings, the page.
    """

    exit_code = 1

    def __init__(self, message: str, outcome: Any = None) -> None:
        super().__init__(message)
        self.outcome = outcome


class JobError(Exception):
    """A job stopped and has reported why; the process only has to end with `exit_code`.

    Args:
        exit_code: of the process.
        reason: folder of the job and the first line of its error, for a sweeper that goes on.
    """

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(exit_code, reason)  # what it is made from again, in the process that started the job
        self.exit_code, self.reason = exit_code, reason

    def __str__(self) -> str:
        return self.reason


def check_types(settings: Any, prefix: str) -> None:
    """Check that the fields of a dataclass hold what they are declared as; a whole number passes as a number.

    Args:
        settings: with fields of plain values, sequences of these, and other dataclasses.
        prefix: of the fields' names in messages, for example "fit.".

    Raises:
        UserError: names the field, what it holds and what is needed.
    """
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, wanted = getattr(settings, field.name), hints[field.name]
        if not _fits(value, wanted):
            raise UserError(f"{prefix}{field.name}={value!r}: give {describe(wanted)}.")


def _fits(value: Any, wanted: Any) -> bool:
    kind, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if kind is types.UnionType:
        return any(_fits(value, part) for part in parts)
    if kind in (tuple, Sequence):
        return isinstance(value, list | tuple) and all(_fits(item, parts[0]) for item in value)
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, int | float if wanted is float else wanted)


def describe(wanted: Any) -> str:
    """Return a type in words: "a whole number or null", "a list, each a number", "one of fit, test"."""
    kind, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if kind in (types.UnionType, typing.Union):
        return " or ".join(describe(part) for part in parts)
    if kind in (tuple, list, Sequence):
        return f"a list, each {describe(parts[0])}"
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return f"one of {', '.join(member.name for member in wanted)}"
    return _WORDS.get(wanted) or str(wanted.__name__)

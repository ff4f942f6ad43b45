"""Errors that are the user's to fix: printed as one message, without a traceback, with an exit code of their own."""

from typing import Any


class UserError(Exception):
    """A wrong setting, a missing file, a foreign folder: says what was found, what is allowed, what to type next."""

    exit_code = 2


class TooManyBadItems(UserError):
    """Bulk work ran to its end, but more items failed than `max_bad_fraction` allows."""

    exit_code = 3


class AuditFailed(UserError):
    """The audit looked at everything and found errors (or warnings, where `strict` asks for that).

    Attributes:
        outcome: what the stage tells besides (a `tasks.extract_stage.Outcome`): counts, warnings, the page.
    """

    exit_code = 1

    def __init__(self, message: str, outcome: Any = None) -> None:
        super().__init__(message)
        self.outcome = outcome

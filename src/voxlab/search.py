"""How a search with Optuna ends: Hydra's sweeper takes failed trials for done, and has a traceback where all fail."""

import contextlib
import logging
import traceback
from collections.abc import Iterator

from voxlab.errors import UserError

_SWEEPER = "hydra_plugins.hydra_optuna_sweeper._impl"
_FAILED = "Failed experiment: "  # begins the line that the sweeper logs for each failed trial, and for nothing else
_MAX_LINES, _MAX_WIDTH = 10, 200


class FailedTrials(UserError):
    """Trials of a search have failed; ends the process as a sweep with failed jobs does."""

    exit_code = 1


@contextlib.contextmanager
def judged() -> Iterator[None]:
    """Watch a search inside of the block; does nothing for anything else.

    Raises:
        FailedTrials: at its end, if a trial has failed; names them with their reasons.
    """
    failed = _Reasons()
    sweeper = logging.getLogger(_SWEEPER)
    sweeper.addFilter(failed)
    try:
        yield
    except ValueError as error:
        if not failed.reasons or not _is_from_optuna(error):
            raise
        raise FailedTrials(f"no trial of the search has a figure, {_list(failed.reasons)}") from error
    finally:
        sweeper.removeFilter(failed)
    if failed.reasons:
        raise FailedTrials(f"the search is over, but {_list(failed.reasons)}")


class _Reasons(logging.Filter):
    """Lets every log line pass, and keeps why trials have failed."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Note a failed trial."""
        message = record.getMessage()
        if message.startswith(_FAILED):
            self.reasons.append(message.removeprefix(_FAILED).partition("\n")[0])
        return True


def _list(reasons: list[str]) -> str:
    lines = [f"  {reason[:_MAX_WIDTH]}" for reason in reasons[:_MAX_LINES]]
    more = [f"  and {len(reasons) - _MAX_LINES} more"] if len(reasons) > _MAX_LINES else []
    count = "1 trial has failed" if len(reasons) == 1 else f"{len(reasons)} trials have failed"
    hint = "All trials are in sweep.csv of the sweep's folder, each with its error."
    if any("float-castable" in reason for reason in reasons):
        hint = "A trial gives the search the figure that objective names: objective=<a figure of metrics.json>."
    return "\n".join([f"{count}:", *lines, *more, hint])


def _is_from_optuna(error: ValueError) -> bool:
    """Tell whether Optuna itself has raised it: it has no best trial where none is complete."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__")).startswith("optuna.")

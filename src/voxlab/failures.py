"""How a run that failed is told, and what is left of it."""

import logging
import traceback
from pathlib import Path

from voxlab import config
from voxlab.errors import JobError, UserError
from voxlab.provenance import Status

log = logging.getLogger(__name__)

# What stands in the folder of a run that has only begun, once, in one process.
_OF_A_START = {
    *("command.txt", "config.yaml", "env.json", "error.txt", "git.diff", "git.txt", "packages.txt", "rank0.log"),
    *("status.json", ".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"),
    ".hydra/overrides.1.yaml",
}


def report(error: Exception, status: Status, *, sweep: bool) -> JobError:
    """Write error.txt and the log line of a failure.

    Args:
        error: what stopped the run.
        status: of the run.
        sweep: the run is a job of a sweep.
    """
    message = config.user_message(error)
    place = f"rank {status.ranks.rank}: " if status.ranks.world > 1 else ""
    if status.claim_error("".join(traceback.format_exception(error))):
        status.finish("failed", message or f"{type(error).__name__}: {error}")
        log.error("%s%s", place, message or "stopped by a bug or a library:", exc_info=_frames(error, message))
    else:
        log.error("%sstopped as well (%s); the first error is in error.txt", place, type(error).__name__)
    reason = f"{status.path.parent}: {message or f'{type(error).__name__}: {error}'}".partition("\n")[0]
    return JobError(1 if sweep or message is None else getattr(error, "exit_code", 2), reason)


def _frames(error: Exception, message: str | None) -> Exception | None:
    """Return the error where its frames are to be printed: that of a bug, or any if the user wants to see them."""
    return error if message is None or config.is_verbose() else None


def of_a_job(error: Exception, run_dir: Path) -> JobError:
    """Say at once why a job could not begin: Hydra prints the first error only, and at the end."""
    if isinstance(error, JobError):
        return error
    message = config.user_message(error)
    log.error("%s", message or "stopped by a bug or a library:", exc_info=_frames(error, message))
    return JobError(1, f"{run_dir}: {message or error}".partition("\n")[0])


def discard(error: Exception, run_dir: Path) -> None:
    """Leave no folder of a run that a wrong word has stopped: the user reads it, and types the next line."""
    is_mistake = getattr(error, "exit_code", None) == UserError.exit_code
    if is_mistake and _delete(run_dir) and isinstance(error, JobError):  # whose folder was told
        log.info("removed %s, which held no results", run_dir)


def _delete(run_dir: Path) -> bool:
    """Delete the folder of a run that stopped before it made anything; tells whether it was one.

    A folder that was gone on with before, or that holds anything besides what describes a run, stays as it is.
    """
    held = {path.relative_to(run_dir).as_posix(): path for path in run_dir.rglob("*")}
    if not held.keys() <= _OF_A_START:
        return False
    try:
        for name in sorted(held, reverse=True):  # what is in a folder before the folder
            held[name].rmdir() if held[name].is_dir() else held[name].unlink()
        run_dir.rmdir()
    except OSError:  # it stays, in part: nothing that anyone needs
        return False
    return True

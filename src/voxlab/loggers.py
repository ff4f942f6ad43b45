"""The loggers of a run, opened at first use: their names in Weights & Biases, what they get at its end, their closing.

Which loggers there are, the group `logger` says; a logger is one of Lightning's.
"""

import contextlib
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlab.storage import flatten

_log = logging.getLogger(__name__)

_TAGGED = ("data", "codec", "loss")
_LEFT_OUT = ("task=", "logger", "resume=")  # of the words that name a run
_FINAL = "final/"  # beside the curves of the same names


class Loggers(Mapping[str, Any]):
    """The chosen loggers by name, opened at first use: most mistakes are found before Lightning is imported.

    Args:
        open_all: makes them.
    """

    def __init__(self, open_all: Callable[[], dict[str, Any]]) -> None:
        self._open_all = open_all
        self.opened: dict[str, Any] | None = None

    def _all(self) -> dict[str, Any]:
        if self.opened is None:
            self.opened = self._open_all()
        return self.opened

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


@dataclass(frozen=True)
class Launch:
    """What a run is called.

    Attributes:
        run_dir: its folder.
        choices: group -> chosen option.
        words: settings of the command line.
        sweep: whether it is a job of one.
        name: the key `name`.
        tags: the key `tags`.
    """

    run_dir: Path
    choices: Mapping[str, str | None]
    words: list[str]
    sweep: bool
    name: str | None
    tags: list[str]


def wandb_fields(launch: Launch, plain: dict[str, Any]) -> dict[str, Any]:
    """Name the W&B run after this one: resuming continues it, the jobs of a sweep form a group.

    Args:
        launch: what the run is called.
        plain: its configuration.
    """
    run_dir, choices = launch.run_dir.resolve(), launch.choices
    changed = [word for word in launch.words if not word.startswith(_LEFT_OUT)]
    return {
        "id": f"{run_dir.parent.name}-{run_dir.name}" if launch.sweep else run_dir.name,
        "resume": "allow",
        "group": run_dir.parent.name if launch.sweep else choices.get("experiment"),
        "job_type": choices["task"],
        "name": launch.name or " ".join([str(choices["task"]), *changed]),
        "tags": [*launch.tags, *(f"{key}={choices[key]}" for key in _TAGGED if choices.get(key))],
        "config": plain,
    }


def open_loggers(makers: Mapping[str, Callable[..., Any]], launch: Launch, plain: dict[str, Any]) -> dict[str, Any]:
    """Make the loggers of the group `logger`.

    Args:
        makers: name -> takes `save_dir` and what else that logger needs.
        launch: what the run is called.
        plain: its configuration.
    """
    extra = {"wandb": wandb_fields(launch, plain)} if "wandb" in makers else {}
    logging.getLogger("lightning").handlers.clear()  # its own handler would print every line twice
    return {name: make(save_dir=str(launch.run_dir), **extra.get(name, {})) for name, make in makers.items()}


@contextlib.contextmanager
def opened(loggers: Loggers, run_dir: Path) -> Iterator[Loggers]:
    """Give a task its loggers and close them, in a sweep before the next job opens its own."""
    state = "failed"
    try:
        yield loggers
        state = "success"
    finally:
        found = loggers.opened or {}
        for logger in found.values():
            logger.finalize(state)
        if "wandb" in found:
            _finish_wandb(run_dir, state)


def _finish_wandb(run_dir: Path, state: str) -> None:
    import wandb

    wandb.finish(exit_code=0 if state == "success" else 1)
    for folder in sorted((run_dir / "wandb").glob("offline-run-*"))[-1:]:
        _log.info("to upload this run: wandb sync %s", shlex.quote(str(folder)))


def log_results(loggers: Mapping[str, Any], plain: dict[str, Any], summary: Mapping[str, Any], run_dir: Path) -> None:
    """Hand over the configuration, the figures of the summary, and the plots, clips and videos of the run folder.

    The figures stand beside the curves, not in them: in W&B's summary, in TensorBoard's tab HParams, in the last line
    of the CSV file.

    Args:
        loggers: by name.
        plain: the configuration.
        summary: of the task.
        run_dir: of the run.
    """
    if not loggers:
        return
    from voxlab.media import log_folder

    numbers = {key: float(value) for key, value in flatten(summary).items() if isinstance(value, int | float)}
    final = {f"{_FINAL}{key}": value for key, value in numbers.items()}
    flat = flatten({key: value for key, value in plain.items() if key != "task"})
    for name, logger in loggers.items():
        if name == "wandb":
            logger.experiment.summary.update(numbers)
        elif name == "tensorboard":
            logger.log_hyperparams(flat, final)
        else:
            logger.log_hyperparams(plain)
            logger.log_metrics(final)
    log_folder(loggers, run_dir)

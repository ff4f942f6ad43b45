"""What sets runs apart: settings that somebody chose, code and machine, versions of packages."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from voxlab.tasks.compare.runs import Run

_IDLE = ("logger", "name", "tags", "resume", "rerun", "objective", "dry_run")  # settings that change no figure
ABSENT = None

Rows = dict[str, list[Any]]  # what -> its value in each run, at least two of them different


def settings(runs: Sequence[Run]) -> Rows:
    """Return options and keys that differ; not those that follow from others.

    A key is left out where it is an interpolation of others, and where the chosen option of its group, or the task,
    says it already, unless a command line names it: such keys come first.
    """
    groups = list(dict.fromkeys(group for run in runs for group in run.choices if not group.startswith("hydra/")))
    options = {group: [run.choices.get(group) for run in runs] for group in groups if not group.startswith(_IDLE)}
    chosen = _varied(options)
    keys = list(dict.fromkeys(key for run in runs for key in run.raw if not _is_idle(key)))
    varied = [key for key in keys if _differ([run.raw.get(key, ABSENT) for run in runs])]
    named = {_key_of(word) for run in runs for word in run.words}
    kept = [key for key in varied if key in named or not _is_explained(key, chosen, runs)]
    kept.sort(key=lambda key: key not in named)
    return chosen | _varied({key: [run.settings.get(key, ABSENT) for run in runs] for key in kept})


def _varied(rows: Mapping[str, list[Any]]) -> Rows:
    return {name: values for name, values in rows.items() if _differ(values)}


def _differ(values: Sequence[Any]) -> bool:
    return len({repr(value) for value in values}) > 1


def _is_idle(key: str) -> bool:
    return key.partition(".")[0] in _IDLE


def _key_of(word: str) -> str:
    return re.sub(r"^[+~]*", "", word).partition("=")[0]


def _is_explained(key: str, chosen: Rows, runs: Sequence[Run]) -> bool:
    """Tell whether runs of the same option have the same value of a key of its group, or runs of the same task."""
    node = key.partition(".")[0]
    for group, options in chosen.items():
        if group != "task" and group.rpartition("@")[2] != node:
            continue
        values: dict[str, set[str]] = {}
        for option, run in zip(options, runs, strict=True):
            values.setdefault(str(option), set()).add(repr(run.raw.get(key, ABSENT)))
        if all(len(found) == 1 for found in values.values()):
            return True
    return False


def code(runs: Sequence[Run]) -> Rows:
    """Return what differs of commit, Python, torch, device, GPUs and number of ranks."""
    return _of(runs, lambda run: run.code)


def packages(runs: Sequence[Run]) -> Rows:
    """Return the packages of which the runs had different versions."""
    return _of(runs, lambda run: run.packages)


def _of(runs: Sequence[Run], read: Callable[[Run], Mapping[str, Any]]) -> Rows:
    known = [read(run) for run in runs]
    names = list(dict.fromkeys(name for values in known for name in values))
    return _varied({name: [values.get(name, ABSENT) for values in known] for name in names})

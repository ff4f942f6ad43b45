"""What a run folder says about its run: settings, state, figures, code and packages."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from voxlab.errors import UserError
from voxlab.storage import flatten, read_object, read_status
from voxlab.tasks.compare.figures import Figure, read_figures
from voxlab.tasks.history import FILE, read_history

Read = TypeVar("Read")

_SILENT = ("task=", "logger", "hydra.", "resume=", "rerun=", "name=", "tags=")  # words that don't describe a run
_TITLE_CHARACTERS = 70
_TASKS = "voxlab.tasks."
_SHORT = 10  # digits of a hash


@dataclass(frozen=True)
class Run:
    """One run.

    Args:
        folder: of the run.
        label: the end of its path, as much as sets it apart from the others.
        title: the label and what the run is, cut to a line; no other run has the same.
        about: its name, else the words of its command line that not all the others have.
        task: name of its task.
        state: "done", "failed", "interrupted", "running or killed", "not started", or
            "unreadable: " and what is wrong with which of its files.
        error: why it failed; "" where it didn't.
        started: time, or None.
        seconds: how long it took, or None.
        settings: resolved configuration, dotted keys.
        raw: the same as it was composed: what follows from another key is an interpolation there.
        choices: group -> option.
        words: of its command line.
        figures: numbers of its metrics.json; none unless it is done.
        code: commit, Python, torch, device and so on.
        packages: name -> version.
        history: rows of its history.jsonl; left out of comparisons of runs, since it grows while a run works.
    """

    folder: Path
    label: str
    title: str
    about: str
    task: str
    state: str
    error: str
    started: str | None
    seconds: float | None
    settings: Mapping[str, Any]
    raw: Mapping[str, Any]
    choices: Mapping[str, Any]
    words: Sequence[str]
    figures: Mapping[str, Figure]
    code: Mapping[str, Any]
    packages: Mapping[str, str]
    history: Sequence[dict[str, Any]] = field(default=(), compare=False)


@dataclass(frozen=True)
class _Files:
    """The files of a run folder; one that can't be read is told of in `problems`, and counts as empty."""

    folder: Path
    problems: list[str] = field(default_factory=list)

    def read(self, name: str, read: Callable[[Path], Read], empty: Read) -> Read:
        try:
            return read(self.folder / name)
        except UserError as error:
            self.problems.append(str(error).removeprefix(f"{self.folder}/"))
            return empty

    def json(self, name: str) -> dict[str, Any]:
        return self.read(name, read_object, {})

    def text(self, name: str) -> str:
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8", errors="backslashreplace") if path.is_file() else ""
        except OSError as error:
            self.problems.append(f"{name}: {error.strerror or error}")
            return ""

    def yaml(self, name: str) -> dict[str, Any]:
        return self.read(name, lambda path: read_object(path, _parse_yaml), {})


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read what the runs have written so far."""
    opened = [_Files(folder) for folder in folders]
    commands = [_words(files) for files in opened]
    shared = set(commands[0]).intersection(*commands) if len(commands) > 1 else set()
    rows = zip(opened, _labels(folders), commands, strict=True)
    runs = [_read(files, label, words, shared) for files, label, words in rows]
    return [replace(run, title=title) for run, title in zip(runs, _titles(runs), strict=True)]


def _titles(runs: Sequence[Run]) -> list[str]:
    """Return label and meaning of each run, cut to a line; those that are the same then get its number as well."""
    texts = [f"{run.label}: {run.about}" if run.about else run.label for run in runs]
    cut = [text if len(text) <= _TITLE_CHARACTERS else f"{text[: _TITLE_CHARACTERS - 1]}…" for text in texts]
    counts = Counter(cut)
    return [f"{text} [{number}]" if counts[text] > 1 else text for number, text in enumerate(cut, 1)]


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return as many of the last parts of each path as make all of them different.

    A bare number, that of a job, gets the folder of its sweep before it where runs of elsewhere stand beside it.
    """
    parts = [folder.absolute().parts for folder in folders]
    is_mixed = len({part[:-1] for part in parts}) > 1
    for count in range(1, max(map(len, parts), default=1)):
        labels = ["/".join(part[-count:]) for part in parts]
        if len(set(labels)) == len(labels):
            pairs = zip(labels, parts, strict=True)
            return ["/".join(part[-2:]) if is_mixed and label.isdigit() else label for label, part in pairs]
    return [str(folder) for folder in folders]


def _read(files: _Files, label: str, words: Sequence[str], shared: set[str]) -> Run:
    config = files.yaml("config.yaml")
    composed = files.yaml(".hydra/config.yaml")
    # without .hydra, all that `task` repeats from elsewhere would look like a choice
    raw = composed or {key: value for key, value in config.items() if key != "task"}
    choices = _choices(files.yaml(".hydra/hydra.yaml"))
    status = files.read("status.json", read_status, {})
    metrics, known = files.json("metrics.json"), files.json("env.json")
    history = files.read(FILE, read_history, [])
    code, packages = _code(files, known), _packages(files)
    state = f"unreadable: {'; '.join(files.problems)}" if files.problems else _state(files.folder, status)
    own = " ".join(word for word in words if word not in shared and _describes(word))
    return Run(
        folder=files.folder,
        label=label,
        title=label,
        about=str(config.get("name") or own),
        task=choices.get("task") or _task_of(config),
        state=state,
        error=status.get("error") or "",
        started=status.get("started"),
        seconds=status.get("seconds"),
        settings=flatten(config),
        raw=flatten(raw),
        choices=choices,
        words=words,
        figures=read_figures(metrics) if state == "done" else {},
        code=code,
        packages=packages,
        history=history,
    )


def _words(files: _Files) -> list[str]:
    read = files.read(".hydra/overrides.yaml", lambda path: read_object(path, _parse_words), {})
    return [str(word) for word in read.get("words", [])]


def _parse_words(text: str) -> dict[str, Any]:
    words = _parse_yaml(text)
    if not isinstance(words, list):
        raise ValueError("not a list of words")
    return {"words": words}


def _choices(hydra: Mapping[str, Any]) -> dict[str, Any]:
    prefix = "hydra.runtime.choices."
    return {key.removeprefix(prefix): value for key, value in flatten(hydra).items() if key.startswith(prefix)}


def _describes(word: str) -> bool:
    return not word.lstrip("+~").startswith(_SILENT)


def _state(folder: Path, status: Mapping[str, Any]) -> str:
    state = status.get("state", "not started")
    if state != "running":
        return state
    log = folder / "rank0.log"
    seen = f"; last log {datetime.fromtimestamp(log.stat().st_mtime):%Y-%m-%d %H:%M}" if log.is_file() else ""
    return f"running or killed{seen}"


def _task_of(config: Mapping[str, Any]) -> str:
    target = str(flatten(config).get("task._target_", ""))
    return target.split(".")[2] if target.startswith(_TASKS) else "unknown"


def _code(files: _Files, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the commit, marked with a hash of what was changed since, and what of the machine may matter."""
    lines = (line.partition(" ") for line in files.text("git.txt").splitlines())
    git = {name: value for name, _, value in lines if name in ("commit", "dirty")}
    commit = git.get("commit", "unknown")[:_SHORT]
    if git.get("dirty") == "True":
        commit += f" changed ({hashlib.sha256(files.text('git.diff').encode()).hexdigest()[:6]})"
    return {"commit": commit, **{name: known.get(name) for name in ("python", "torch", "device", "gpus", "world")}}


def _packages(files: _Files) -> dict[str, str]:
    pairs = (line.partition("==") for line in files.text("packages.txt").splitlines())
    return {name: version for name, _, version in pairs}


def _parse_yaml(text: str) -> Any:
    try:
        # `yaml.safe_load`, in C: a sweep has hundreds of these files
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem}{line}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error

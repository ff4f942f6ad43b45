"""What a run folder says about its run: settings, state, figures, code and packages."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from voxlab.storage import flatten
from voxlab.tasks.compare.figures import Figure, read_figures

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
        about: its name, else the words of its command line that not all the others have.
        task: name of its task.
        state: "done", "failed", "interrupted", "running or killed" or "not started".
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
    """

    folder: Path
    label: str
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

    @property
    def title(self) -> str:
        """The label and what the run is, cut to a line."""
        text = f"{self.label}: {self.about}" if self.about else self.label
        return text if len(text) <= _TITLE_CHARACTERS else f"{text[: _TITLE_CHARACTERS - 1]}…"


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read what the runs have written so far."""
    commands = [_words(folder) for folder in folders]
    shared = set(commands[0]).intersection(*commands) if len(commands) > 1 else set()
    rows = zip(folders, _labels(folders), commands, strict=True)
    return [_read(folder, label, words, shared) for folder, label, words in rows]


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return as many of the last parts of each path as make all of them different."""
    parts = [folder.absolute().parts for folder in folders]
    for count in range(1, max(map(len, parts), default=1)):
        labels = ["/".join(part[-count:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]


def _read(folder: Path, label: str, words: Sequence[str], shared: set[str]) -> Run:
    config = _yaml(folder / "config.yaml")
    composed = _yaml(folder / ".hydra" / "config.yaml")
    # without .hydra, all that `task` repeats from elsewhere would look like a choice
    raw = composed or {key: value for key, value in config.items() if key != "task"}
    choices = _yaml(folder / ".hydra" / "hydra.yaml").get("hydra", {}).get("runtime", {}).get("choices", {})
    status = _json(folder / "status.json")
    state = _state(folder, status)
    own = " ".join(word for word in words if word not in shared and _describes(word))
    return Run(
        folder=folder,
        label=label,
        about=config.get("name") or own,
        task=choices.get("task") or _task_of(config),
        state=state,
        error=status.get("error") or "",
        started=status.get("started"),
        seconds=status.get("seconds"),
        settings=flatten(config),
        raw=flatten(raw),
        choices=choices,
        words=words,
        figures=read_figures(_json(folder / "metrics.json")) if state == "done" else {},
        code=_code(folder),
        packages=_packages(folder),
    )


def _words(folder: Path) -> list[str]:
    read = _yaml(folder / ".hydra" / "overrides.yaml")
    return [str(word) for word in read] if isinstance(read, list) else []


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
    target = str(config.get("task", {}).get("_target_", ""))
    return target.split(".")[2] if target.startswith(_TASKS) else "unknown"


def _code(folder: Path) -> dict[str, Any]:
    """Return the commit, marked with a hash of what was changed since, and what of the machine may matter."""
    lines = (line.partition(" ") for line in _text(folder / "git.txt").splitlines())
    git = {name: value for name, _, value in lines if name in ("commit", "dirty")}
    commit = git.get("commit", "unknown")[:_SHORT]
    if git.get("dirty") == "True":
        commit += f" changed ({hashlib.sha256(_text(folder / 'git.diff').encode()).hexdigest()[:6]})"
    known = _json(folder / "env.json")
    return {"commit": commit, **{name: known.get(name) for name in ("python", "torch", "device", "gpus", "world")}}


def _packages(folder: Path) -> dict[str, str]:
    pairs = (line.partition("==") for line in _text(folder / "packages.txt").splitlines())
    return {name: version for name, _, version in pairs}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="backslashreplace") if path.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _yaml(path: Path) -> Any:
    # `yaml.safe_load`, in C: a sweep has hundreds of these files
    return yaml.load(_text(path), Loader=yaml.CSafeLoader) or {}

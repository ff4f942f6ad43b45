"""python main.py rerun=<run folder>, resume=<run folder>: what an earlier run tells by its folder, and what differs.

config.py replays the words of that run, run.py its configuration; here are the files, the warnings and the verdict.
"""

import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from voxlab.errors import UserError
from voxlab.storage import atomic_write_json, differences, flatten

_log = logging.getLogger(__name__)

FILE = "rerun.json"
_WORDS = Path(".hydra", "overrides.yaml")
_WORD, _RESUME = "rerun=", "resume="
OF_A_LAUNCH = ("rerun", "resume", "dry_run")  # said of one launch, not of what it computes
_MACHINE = ("python", "torch", "cuda", "gpus", "device", "world")
# Figures of a machine and its load, or of what was there already: they say nothing about the result.
_UNSTEADY = re.compile(r"(second|speed|real_time|throughput|_per_s\b|_this_run|up_to_date|extracted|resumed)")
_MAX_LINES = 10


def folder_of(words: Iterable[str], beginning: str = _WORD) -> str | None:
    """Return the folder that `rerun=` names, or None."""
    bare = [word.lstrip("+") for word in words]
    named = [word.removeprefix(beginning).strip("'\"") for word in bare if word.startswith(beginning)]
    return named[-1] if named and named[-1] not in ("", "null") else None


def expand(words: list[str], groups: Collection[str]) -> list[str]:
    """Return the words of the earlier run, then `rerun=` and the other words, which win.

    Args:
        words: settings of the command line, `rerun=` among them.
        groups: names of the groups.

    Raises:
        UserError: there is no such run, or a word asks for another task.
    """
    folder = Path(folder_of(words) or "")
    earlier = read_words(folder)
    others = [word for word in words if not word.lstrip("+").startswith(_WORD)]
    for word in others:
        if _key(word) in ("task", "experiment") and word not in earlier:
            raise UserError(f"{word}: rerun= repeats the task of {folder}. For another one leave out rerun=.")
    return [*_kept(earlier, others, OF_A_LAUNCH, groups), f"{_WORD}{_quoted(folder)}", *others]


def go_on(words: list[str], groups: Collection[str]) -> list[str]:
    """Return the words of the run that `resume=` names, then these words, which win; these alone if they say all.

    Args:
        words: settings of the command line.
        groups: names of the groups.
    """
    folder = Path(folder_of(words, _RESUME) or "")
    if not (folder / _WORDS).is_file():
        return words
    earlier = read_words(folder)
    choices = [word for word in words if _key(word) in ("task", "experiment")]
    if not set(choices) <= set(earlier):
        return words  # of another run: what differs is told
    words = [word for word in words if word not in choices]
    return [*_kept(earlier, words, ("resume", "dry_run"), groups), *words]


def _kept(earlier: list[str], others: list[str], dropped: Iterable[str], groups: Collection[str]) -> list[str]:
    """Return the earlier words that no other one replaces, nor the group that they stand in."""
    replaced = {_key(word) for word in others} | set(dropped)
    below = tuple(f"{node(key)}." for key in replaced if is_group(key, groups))
    return [word for word in earlier if _key(word) not in replaced and not _key(word).startswith(below)]


def is_group(key: str, groups: Collection[str]) -> bool:
    """Tell `codec@source` and `loss` from `loss.gamma`."""
    return key.partition("@")[0] in groups


def node(key: str) -> str:
    """Return where the option of a group stands: `source` for `codec@source`."""
    return key.rpartition("@")[2]


def keys_given(words: list[str]) -> set[str]:
    """Return the keys set by the words from `rerun=` on, those before are the earlier run's; groups by their place."""
    first = next(number for number, word in enumerate(words) if word.startswith(_WORD))
    return {node(_key(word)) for word in words[first:]}


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _quoted(folder: Path) -> str:
    text = str(folder)
    return text if re.fullmatch(r"[\w./:@+%-]+", text) else "'" + text.replace("'", "\\'") + "'"


def read_words(folder: Path) -> list[str]:
    """Return the words that the run in `folder` was started with.

    Raises:
        UserError: there is no run; names the jobs of a sweep.
    """
    path = folder / _WORDS
    if path.is_file() and (folder / "config.yaml").is_file():
        return [str(word) for word in yaml.safe_load(path.read_text(encoding="utf-8")) or []]
    jobs = sorted(found.parent.name for found in folder.glob("*/config.yaml"))
    if jobs:
        raise UserError(f"rerun={folder} holds several runs ({', '.join(jobs[:8])}). Try rerun={folder / jobs[0]}")
    missing = "no such folder" if not folder.is_dir() else "it has no config.yaml and .hydra/overrides.yaml"
    raise UserError(f"rerun={folder}: no run folder ({missing}). A run's folder is printed when it starts.")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the resolved configuration of a run, without the arguments of its task, which repeat it."""
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in settings.items() if key != "task"}


def unfit(folder: Path, keys: list[str]) -> UserError:
    """Return the error for settings of an earlier run that today's code does not know, or takes no such value for."""
    commit = _read(folder / "git.txt").partition("\n")[0]
    listed = ", ".join(keys[:_MAX_LINES]) + (", ..." if len(keys) > _MAX_LINES else "")
    return UserError(
        f"{folder}/config.yaml does not fit this version of voxlab, which has no such key, or not with that value:\n"
        f"  {listed}\nThe run was made with: {commit}. Use that version, or start a new run without rerun=."
    )


def changes(earlier: Path, now: Path, free_keys: Collection[str]) -> list[str]:
    """List how code, packages, machine and configuration of two runs differ.

    Args:
        earlier: folder of the run that is repeated.
        now: folder of this run, its provenance written.
        free_keys: beginnings of keys that may differ.
    """
    return [
        *_code(earlier, now),
        *_capped("package", differences(_packages(earlier), _packages(now))),
        *_capped("machine", differences(_machine(earlier), _machine(now))),
        *_capped("setting", _settings(earlier, now, free_keys)),
    ]


def _capped(kind: str, lines: list[str]) -> list[str]:
    more = [f"and {len(lines) - _MAX_LINES} more differences of this kind: {kind}"] if len(lines) > _MAX_LINES else []
    return [*(f"{kind} {line}" for line in lines[:_MAX_LINES]), *more]


def _code(earlier: Path, now: Path) -> list[str]:
    before, after = (_read(folder / "git.txt").partition("\n")[0] for folder in (earlier, now))
    if before != after:
        return [f"code: {before} -> {after}"]
    return (
        [] if _read(earlier / "git.diff") == _read(now / "git.diff") else ["code: other uncommitted changes (git.diff)"]
    )


def _packages(folder: Path) -> dict[str, str]:
    pairs = [line.partition("==") for line in _read(folder / "packages.txt").splitlines()]
    return {name: version for name, _, version in pairs}


def _machine(folder: Path) -> dict[str, Any]:
    found = json.loads(_read(folder / "env.json") or "{}")
    return {name: found.get(name) for name in _MACHINE}


def _settings(earlier: Path, now: Path, free_keys: Collection[str]) -> list[str]:
    lines = differences(read_config(earlier), read_config(now))
    return [line for line in lines if not line.startswith((*free_keys, *(f"{key}:" for key in OF_A_LAUNCH)))]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def verdict(earlier: Path, now: Path, changed: list[str]) -> dict[str, Any]:
    """Compare the figures of both runs' metrics.json, tell the result, and write it to rerun.json in `now`.

    Args:
        earlier: folder of the run that was repeated.
        now: folder of this run, done.
        changed: what `changes` has found.
    """
    found: dict[str, Any] = {"of": str(earlier), "changes": changed, "same_figures": None, "differences": {}}
    before = _figures(earlier)
    if before:
        found["differences"] = _different(before, _figures(now))
        found["same_figures"] = not found["differences"]
    atomic_write_json(now / FILE, found)
    if not before:
        _log.warning("%s has no metrics.json: there is nothing to compare these figures with", earlier)
    elif found["same_figures"]:
        _log.info("the same figures as %s (%d compared)", earlier, len(before))
    else:
        lines = [f"{name}: {old} -> {new}" for name, (old, new) in found["differences"].items()]
        _log.warning("other figures than %s:\n  %s", earlier, "\n  ".join(_capped("figure", lines)))
    return found


def _figures(folder: Path) -> dict[str, Any]:
    """Return the numbers of a run's metrics.json but those of time and of what was there already."""
    flat = flatten(json.loads(_read(folder / "metrics.json") or "{}"))
    return {
        name: value
        for name, value in flat.items()
        if not _UNSTEADY.search(name) and isinstance(value, int | float | list)
    }


def _different(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = [*before, *(name for name in after if name not in before)]
    pairs = {name: [before.get(name), after.get(name)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

"""Tab completion: the options and keys that can follow on a command line, of those that its task uses."""

import glob
from enum import Enum
from pathlib import Path
from typing import Any

from voxlab.choices import Composed, fitting, node_of, subkeys, task_keys, used
from voxlab.schemas import PLACES, SCHEMAS, SOURCES, STAGES, Config


def complete(composed: Composed, word: str) -> list[str]:
    """Return what the last word can become.

    Args:
        composed: the words before it.
        word: as far as it is typed: `los`, `loss=fo`, `fit.pa`, `stage=`.
    """
    key, equals, value = word.partition("=")
    if not equals:
        found = _keys(composed, key)
    elif key in PLACES:
        found = [f"{key}={place}" for place in _places(value)]
    else:
        before = value.rpartition(",")[0]  # of a sweep's values, the last is being typed
        found = [f"{key}={before}{',' if before else ''}{each}" for each in _values(composed, key)]
    return sorted(text for text in found if text.startswith(word) and " " not in text)


def _places(typed: str) -> list[str]:
    """Return the files and folders of the last part of a path; hidden ones where it begins with a dot."""
    above, slash, name = typed.rpartition("/")
    found = Path(f"{above}{slash}" or ".").expanduser().glob(f"{glob.escape(name)}*")
    shown = [path for path in found if name.startswith(".") or not path.name.startswith(".")]
    return [f"{above}{slash}{path.name}{'/' if path.is_dir() else ''}" for path in shown]


def _values(composed: Composed, key: str) -> list[str]:
    """Return what a group or a key can be; where that is free, what it is."""
    if key in ("task", "experiment") or (key.partition("@")[0] in composed.options and node_of(key) in used(composed)):
        return fitting(composed, key)
    if key == "stage" and composed.task in STAGES:
        return list(STAGES[composed.task])
    if key == "data.source":
        return list(SOURCES)
    first, *others = key.split(".")
    value = _node(composed, first, others)
    kind = SCHEMAS.get(composed.task or "", Config).__annotations__.get(key)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [member.name for member in kind]
    if isinstance(value, bool):
        return ["false", "true"]
    return [str(value)] if isinstance(value, int | float | str) and value != "???" else []


def _keys(composed: Composed, typed: str) -> list[str]:
    """Return groups and keys of one level."""
    shown = used(composed)
    if "." not in typed:
        groups = ["experiment", *(name for name in composed.chosen if node_of(name) in [*shown, "task"])]
        named = [node_of(group) for group in groups]
        nodes = [key for key in shown if subkeys(_node(composed, key, []))]
        leaves = [key for key in shown if key not in [*named, *nodes]]
        return [*(f"{group}=" for group in groups), *(f"{key}." for key in nodes), *(f"{key}=" for key in leaves)]
    *path, _ = typed.split(".")
    found = subkeys(_node(composed, path[0], path[1:])).items()
    return [".".join([*path, name]) + ("." if isinstance(value, dict) else "=") for name, value in found]


def _node(composed: Composed, first: str, others: list[str]) -> Any:
    """Return what stands at a dotted key that the task uses, None elsewhere."""
    value = task_keys(composed) if first == "task" else composed.settings.get(first)
    for name in others:
        value = subkeys(value).get(name)
    return value if first in used(composed) else None

"""What can be chosen: the options of the groups, and which groups, options and keys mean something to a task.

Files and plain values, no Hydra: the help page and shell completion are made of it.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from voxlab.schemas import Config

RUN_WIDE = tuple(field.name for field in fields(Config) if field.type is not Any)
_OF_A_FAMILY = ("loss", "model")  # groups whose options of another family than the task's can't be used by it
_CODE = re.compile(r"^_target_: (\S+)\.\w+$", re.MULTILINE)
_BASE = re.compile(r"^defaults:\n  - (\w+)$", re.MULTILINE)
_REFERENCE = re.compile(r"\$\{[^}]*")


@dataclass(frozen=True)
class Composed:
    """A configuration as it was composed.

    Attributes:
        settings: plain values, nothing resolved; "???" where no option is chosen.
        chosen: group, or group@node -> option.
        options: group -> option -> file.
    """

    settings: dict[str, Any]
    chosen: dict[str, Any]
    options: dict[str, dict[str, Path]]

    @property
    def task(self) -> str | None:
        """The chosen task."""
        return self.chosen.get("task")


def list_options(folders: Iterable[Path], recipes: Path) -> dict[str, dict[str, Path]]:
    """Return group -> option -> file, for recipes and for the groups below each folder."""
    options: dict[str, dict[str, Path]] = {}
    groups = [group for folder in folders for group in folder.iterdir() if group.is_dir() and group.name != "hydra"]
    for group in sorted([*groups, recipes / "experiment"], key=lambda path: path.name):
        found = {path.relative_to(group).with_suffix("").as_posix(): path for path in group.rglob("*.yaml")}
        options[group.name] = dict(sorted({**options.get(group.name, {}), **found}.items()))
    return options


def node_of(group: str) -> str:
    """Return where the option of a group stands: `source` for `codec@source`."""
    return group.rpartition("@")[2]


def used(composed: Composed) -> list[str]:
    """Return the root keys that reach the task: run-wide ones, and what its node refers to, directly or not."""
    found, ahead = {*RUN_WIDE, "logger"}, ["task"]
    while ahead:
        key = ahead.pop()
        if key not in found and key in composed.settings:
            found.add(key)
            references = _REFERENCE.findall(str(composed.settings[key]))
            ahead += [word for reference in references for word in re.findall(r"\w+", reference)]
    return [key for key in composed.settings if key in found and key != "hydra"]


def fitting(composed: Composed, group: str) -> list[str]:
    """Return the options of a group (or group@node) for the task: all, but losses, models and recipes of others."""
    name, chosen = group.partition("@")[0], composed.chosen.get(group)
    files = composed.options.get(name, {})
    if name == "experiment" and composed.task:
        return [recipe for recipe in files if _task_of(recipe, files) == composed.task]
    if name not in _OF_A_FAMILY or chosen not in files:
        return list(files)
    family = _family(files[chosen], files)
    return [option for option, path in files.items() if _family(path, files) in (family, "a user's own")]


def _task_of(recipe: str, files: Mapping[str, Path]) -> str | None:
    """Return the task that a recipe chooses, by itself or by the recipe that it starts from."""
    bases = yaml.safe_load(files[recipe].read_text(encoding="utf-8")).get("defaults", [])
    for base in bases:
        if isinstance(base, dict) and "override /task" in base:
            return base["override /task"]
    return next((_task_of(base, files) for base in bases if base in files), None)


def _family(path: Path, files: Mapping[str, Path]) -> str:
    """Return the module that an option's code stands in: options of one module replace each other."""
    text = path.read_text(encoding="utf-8")
    code, base = _CODE.search(text), _BASE.search(text)
    if code is None and base is not None and base[1] in files:
        return _family(files[base[1]], files)
    module = "" if code is None else code[1]
    return module if module.startswith("voxlab.") or not module else "a user's own"


def subkeys(node: Any) -> dict[str, Any]:
    """Return the keys of a node but those that name its code."""
    pairs = node.items() if isinstance(node, Mapping) else ()
    return {str(key): value for key, value in pairs if key not in ("_target_", "_partial_")}


def task_keys(composed: Composed) -> dict[str, Any]:
    """Return the keys that a task of one's own keeps below `task`: those that stand for no other key."""
    return {key: value for key, value in subkeys(composed.settings.get("task")).items() if "${" not in str(value)}


def changes(prefix: str, default: Any, node: Any) -> list[str]:
    """Return `key=value` for each value that is not the default."""
    words = []
    for key, value in node.items():
        before = default.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            words += changes(f"{prefix}.{key}", before, value)
        elif key not in default or before != value:
            words.append(shlex.quote(f"{prefix}.{key}={spell(value)}"))
    return words


def spell(value: Any) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{spell(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spell, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    return text if re.fullmatch(r"[\w./:@+%-]+", text) else "'" + text.replace("'", "\\'") + "'"

"""The page of `task=<task> --help`: each key that the task uses, once, with its value and the comment of its file.

The page without a task is conf/hydra/help; config.py prints both.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from voxlab.choices import RUN_WIDE, Composed, fitting, node_of, subkeys, task_keys, used
from voxlab.schemas import STAGES

_LONG = ("trainer", "logger")  # of their keys only those that a file says something about; the others by name
_LINE = re.compile(r"( *)([\w@]+):(.*)")


def task_page(composed: Composed, conf: Path, examples: str) -> str:
    """Return what can be set for the chosen task.

    Args:
        composed: with the words that the user gave besides --help.
        conf: the configuration folder.
        examples: commands, one a line, of which those of this task are shown.
    """
    task = str(composed.task)
    shown, path = used(composed), composed.options["task"][task]
    root, own = _comments(conf / "config.yaml"), _comments(path)
    root["stage"] = " | ".join(STAGES[task]) if task in STAGES else root["stage"]
    groups = {node_of(group): group for group in reversed(composed.chosen) if node_of(group) in shown}
    del groups["task"]
    for name in _lists(composed, shown):
        notes = [_comments(file) for file in composed.options[name].values()]
        own |= {f"{name}.{key}": note for each in notes for key, note in each.items()}
    keys = [key for key in shown if key not in (*RUN_WIDE, *groups, "task")]
    commands = [line for line in examples.splitlines() if re.search(rf"\btask={task}\b", line)]
    texts = [
        "\n".join(dict.fromkeys([f"== task={task} ==", *_opening(path), *commands])),
        _part("Keys of every run", _tree({key: composed.settings[key] for key in RUN_WIDE}, root)),
        _part(f"Keys of task={task}", _tree({key: composed.settings[key] for key in keys}, own)),
        "\n".join(_tree({"task": task_keys(composed)}, {})) if task_keys(composed) else "",
        *(_group(composed, group, own) for group in groups.values() if composed.chosen[group]),
        _part("Other options (group=option)", _others(composed, [*groups.values(), *_lists(composed, shown)])),
    ]
    return "\n\n".join(text for text in texts if text)


def run_wide(composed: Composed, conf: Path) -> str:
    """Return the keys of every run."""
    keys = {key: composed.settings[key] for key in RUN_WIDE}
    return "\n".join(_tree(keys, _comments(conf / "config.yaml")))


def _part(title: str, lines: list[str]) -> str:
    return "\n".join([f"== {title} ==", *lines]) if lines else ""


def _group(composed: Composed, group: str, own: Mapping[str, str]) -> str:
    """Return the part of a group: the options, and the keys of the chosen one."""
    node, name, option = node_of(group), group.partition("@")[0], composed.chosen[group]
    options = composed.options[name]
    others = [other for other in fitting(composed, group) if other != option]
    title = f"{group}={option}" + (f" (or: {', '.join(others)})" if others else "")
    notes = {f"{node}.{key}": note for key, note in _inherited(options[option]).items()}
    notes |= {key: note for key, note in own.items() if note or key not in notes}
    settings = subkeys(composed.settings[node])
    known = {key for key in settings if name not in _LONG or notes.get(f"{node}.{key}") or f"{node}.{key}" in own}
    told = {key: value for key, value in settings.items() if key in known}
    silent = [key for key in settings if key not in known]
    lines = [*_opening(options[option]), *(_tree({node: told}, notes) if told else [])]
    return _part(title, [*lines, *(_wrapped(f"{node}. also has {', '.join(silent)}") if silent else [])])


def _lists(composed: Composed, shown: list[str]) -> list[str]:
    """Return the groups of which a list of options is chosen (producers); Hydra doesn't say which."""
    nodes = [node_of(group) for group in composed.chosen]
    return [name for name in composed.options if name in shown and name not in nodes]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent="  # ", subsequent_indent="  # ")


def _others(composed: Composed, groups: Iterable[str]) -> list[str]:
    """Return the groups of which nothing is chosen, the other tasks, and the recipes of this one."""
    recipes = ", ".join(fitting(composed, "experiment"))
    free = [*(group for group in groups if not composed.chosen.get(group)), "task"]
    lines = [f"{group}: {', '.join(fitting(composed, group))}" for group in free]
    return [*lines, *([f"experiment: {recipes}"] if recipes else [])]


def _opening(path: Path) -> list[str]:
    """Return the comment that a file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate([*lines, ""]) if not line.startswith("#"))
    return [line.removeprefix("# ") for line in lines[:first] if not line.startswith("# @")]


def _inherited(path: Path) -> dict[str, str]:
    """Return the comments of an option's file and of those that it starts from."""
    bases = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", [])
    files = [path.with_name(f"{base}.yaml") for base in bases if isinstance(base, str)]
    inherited = {key: note for file in files if file.is_file() for key, note in _inherited(file).items()}
    return {**inherited, **{key: note for key, note in _comments(path).items() if note or key not in inherited}}


def _comments(path: Path) -> dict[str, str]:
    """Return the dotted name of each key of a YAML file -> the comment behind it, "" where there is none."""
    notes: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := _LINE.fullmatch(line):
            above = [(indent, name) for indent, name in above if indent < len(found[1])] + [(len(found[1]), found[2])]
            notes[".".join(name for _, name in above)] = found[3].partition(" # ")[2]
    return notes


def _tree(node: Mapping[str, Any], notes: Mapping[str, str], above: str = "") -> list[str]:
    """Return a line for each key: its value, and its comment."""
    lines = []
    for key, value in subkeys(node).items():
        name, indent = f"{above}{key}", "  " * above.count(".")
        note = f" # {notes[name]}" if notes.get(name) else ""
        if isinstance(value, Mapping) and value:
            inner = _tree(value, notes, f"{name}.")
            lines += [f"{indent}{key}:{note}", *inner] if inner else []
        else:
            lines.append(f"{indent}{key}: {_spelled(value)}{note}")
    return lines


def _spelled(value: Any) -> str:
    if isinstance(value, str):
        return value or "''"
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")

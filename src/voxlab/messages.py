"""What the command line says: the list of tasks, and hints for typos.

Plain text and exceptions only, no Hydra: `config.py` decides when something is said.
"""

import difflib
import re
import shlex
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from voxlab.errors import UserError, describe

_MAX_LINES = 6
_FIRST = "python main.py experiment=quickstart  or  python main.py task=laughter data.source=sample"
_NOT_LOADED = re.compile(r"Error (?:loading|locating target) '([\w.]+)'")  # Hydra's words
_NOISE = re.compile(r"object_type=|reference_type=|To append to|Set the env|.*\$[A-Z]+")


def overview(conf: Path) -> str:
    """List the tasks with an example command each, from the comments that open conf/task/*.yaml."""
    lines = [f"voxlab {version()}: choose a task (python main.py --help has all options)", ""]
    for path in sorted((conf / "task").glob("*.yaml")):
        about, example = re.findall(r"^# (?!@)(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)[:2]
        lines += [f"{path.stem}: {about}", f"    {example}"]
    return "\n".join([*lines, "", f"First runs without any data: {_FIRST}"])


def spelled(text: str, script: str) -> str:
    """Write the commands in a text, which all begin with `python main.py` here, as this program was started.

    Args:
        text: of a message or a page.
        script: the first of sys.argv: main.py, `voxlab`, or __main__.py of the package.
    """
    path = Path(script)
    if path.stem == "voxlab":
        program = "voxlab"
    elif path.name == "__main__.py" and path.parent.name == "voxlab":
        program = "python -m voxlab"
    else:
        return text
    launched = re.sub(r"^(\s*(?:torchrun|accelerate launch) .*?)\bmain\.py\b", r"\1-m voxlab", text, flags=re.MULTILINE)
    return launched.replace("python main.py", program)


def list_recipes(recipes: Path) -> str:
    """Return a line for each recipe: its name, and the first comment of its file."""
    files = sorted((recipes / "experiment").glob("*.yaml"))
    width = max(len(path.stem) for path in files)
    about = (re.search(r"^# (?!@)(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) for path in files)
    return "\n".join(f"{path.stem:{width}}  {line[1] if line else ''}" for path, line in zip(files, about, strict=True))


def no_stage(task: str, stage: str, stages: Sequence[str]) -> str:
    """Say that a task has no such stage, and which it has."""
    others = ", ".join(f"stage={name}" for name in stages)
    return f"stage={stage}: task={task} has no such stage.{_did_you_mean(stage, stages)}\nIt has {others}."


def no_source(source: object, sources: Sequence[str]) -> str:
    """Say where a corpus can come from."""
    hint = _did_you_mean(str(source), sources)
    return f"data.source={source}: there is no such source.{hint}\nChoose from: {', '.join(sources)}."


def to_go_on(run_dir: Path, *, sweep: bool) -> str:
    """Say how a run that was interrupted goes on."""
    if sweep:
        word = shlex.quote(f"hydra.sweep.dir={run_dir.parent}")
        return f"To go on, run the sweep again with {word}: finished jobs are skipped."
    return f"To go on: python main.py {shlex.quote(f'resume={run_dir}')}"


def version() -> str:
    """Return the installed version of voxlab."""
    return metadata.version("voxlab")


def no_such_run(folder: str) -> str:
    """Say that `folder` can't be resumed, and what could."""
    jobs = sorted((path.parent for path in Path(folder).glob("*/config.yaml")), key=lambda job: (len(job.name), job))
    if jobs:
        sweep = shlex.quote(f"hydra.sweep.dir={folder}")
        return (
            f"resume={folder}: a sweep of {len(jobs)} runs. To go on with all that are not done, type its command "
            f"({jobs[0] / 'command.txt'}) again with {sweep}.\nTo go on with one: resume={jobs[0]}"
        )
    runs = sorted(Path("outputs").glob("*/*/status.json"), key=lambda path: path.stat().st_mtime)[-3:]
    recent = ", ".join(str(path.parent) for path in runs) or "none here"
    return f"resume={folder}: no run folder (it has no config.yaml).\nThe latest runs: {recent}"


def no_figure(name: str, names: list[str]) -> str:
    """Say that a run's summary has no such figure, and which come close."""
    hint = _did_you_mean(name, names)
    return f"objective={name}: the run has no such figure.{hint}" + (
        "" if hint else f"\nIt has: {', '.join(names[:20])}"
    )


def explain(error: BaseException, schemas: Mapping[str, type], stages: Mapping[str, Sequence[str]], conf: Path) -> str:
    """Turn a user error, or one of Hydra's or OmegaConf's, into at most six lines that name the fix.

    Args:
        error: what was raised.
        schemas: task -> dataclass of its root keys.
        stages: task -> what `stage` can be.
        conf: the configuration folder.
    """
    causes = list(chain(error))
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
    for cause in causes:
        missing = str(getattr(cause, "missing_cfg_file", None) or "")
        options = getattr(cause, "options", None) or [p.stem for p in sorted((conf / missing).parent.glob("*.yaml"))]
        if missing and options:
            return _no_option(missing, list(options), conf)
    for cause in causes:
        parent, key = getattr(cause, "parent_node", None), getattr(cause, "key", None)
        if isinstance(parent, Mapping) and "Key" in type(cause).__name__ + str(cause) and key not in parent:
            full_key = str(getattr(cause, "full_key", None) or key)
            group, _, option = full_key.partition(".")
            if (conf / group / f"{option}.yaml").is_file():
                return f"{full_key}: {option} is not chosen.\nAdd {group}='[{option}]' to the command."
            if full_key == f"{group}.{key}" and (hint := _key_of_others(conf / group, str(key), list(parent))):
                return hint
            own = parent.get("task") if full_key == key else None
            if isinstance(own, Mapping) and key in own:
                return f"{key}: there is no such key. Did you mean: {_source(conf, str(key)) or f'task.{key}'}?"
            if (parts := full_key.split("."))[0] == "task" and len(parts) > 2 and not parent:
                meant = ".".join([_source(conf, parts[1]) or parts[1], *parts[2:]])
                return f"{full_key}: there is no such key. Did you mean: {meant}?"
            return _no_key(full_key, str(key), list(map(str, parent)), schemas)
    return _wrong_value(causes, schemas, stages) or _wrong_grammar(causes[0]) or _shortened(causes)


def _wrong_value(
    causes: list[BaseException], schemas: Mapping[str, type], stages: Mapping[str, Sequence[str]]
) -> str | None:
    """Say what a typed key of the root can be; None: the error is another one."""
    word = re.match(r"Error merging override (\w+)=(.*)", str(causes[0]))
    if word is None:
        return None
    key, value = word.groups()
    owners = [getattr(cause, "object_type", None) for cause in causes]
    tasks = [task for task, schema in schemas.items() if schema in owners]
    known = [schemas[task] for task in [*tasks, *schemas] if _type_of(schemas[task], key)]
    if not known:
        return None
    if key == "stage" and tasks:
        return no_stage(tasks[0], value, stages[tasks[0]])
    wanted = _type_of(known[0], key)
    text = f"{key}={value}: give {describe(wanted)}."
    if any("is not a ListConfig" in str(cause) for cause in causes):
        return f"{text} Write: {key}='[{value}]'"
    kinds = [wanted, *typing.get_args(wanted)]
    roots = [parent for parent in map(_root, causes) if parent]
    if roots and any(kind in (bool, int, float) for kind in kinds):  # others may stand for what isn't known yet
        before = roots[0].get(key)
        text += f" Without this word it is {'null' if before is None else str(before).lower()}."
    members = [name for kind in kinds for name in getattr(kind, "__members__", ())]
    return text + _did_you_mean(value.strip("[]"), members)


def _type_of(schema: type, key: str) -> Any:
    return typing.get_type_hints(schema).get(key)


def _root(cause: BaseException) -> Mapping[str, Any] | None:
    parent = getattr(cause, "parent_node", None)
    return parent if isinstance(parent, Mapping) else None


def _wrong_grammar(error: BaseException) -> str | None:
    """Say how values are written that Hydra can't read; None: the error is another one."""
    several = re.match(r"Ambiguous value for argument '([^=]+)=(.*)'\n", str(error))
    if several:
        key, value = several.groups()
        return f"{key}={value}: several values. A run for each: -m {key}={value}. One list: {key}='[{value}]'"
    word = getattr(error, "override", None)
    if word is None:
        return None
    key, _, value = word.partition("=")
    return (
        f"{word}: this can't be read. In quotes for the shell: a list {key}='[a, b]', a table {key}='{{a: 1, b: 2}}',\n"
        f"a text with other signs than letters, digits and ./:-+%@ in quotes of its own: {key}='\"{value}\"'"
    )


def explain_build(causes: list[BaseException], words: Sequence[str]) -> str:
    """Say why an object could not be made from its settings.

    Args:
        causes: the chain of errors.
        words: of the command line, for a message that repeats it.
    """
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
    target = next((found[1] for text in map(str, causes) if (found := _NOT_LOADED.search(text))), None)
    absent = next((cause.name for cause in causes if isinstance(cause, ModuleNotFoundError) and cause.name), None)
    if target and absent:
        return _no_module(target, absent, words)
    return next((str(cause) for cause in causes if isinstance(cause, ImportError)), "") or _shortened(causes)


def _no_module(target: str, absent: str, words: Sequence[str]) -> str:
    """Say why the code of a `_target_` can't be imported, and where Python looks for it."""
    package = target.partition(".")[0]
    if absent.partition(".")[0] != package:
        return f"_target_: {target} needs the module {absent}, which isn't installed."
    if absent == target:
        module, _, name = target.rpartition(".")
        return f"_target_: {target} can't be imported: the module {module} has no {name}."
    if absent != package:
        return f"_target_: {target} can't be imported: the package {package} has no module {absent}."
    here = sorted([*Path().glob(f"{package}*"), *Path().glob(f"*/{package}*")])
    folders = [path.parent for path in here if path.is_dir() or path.suffix == ".py"]
    found = f"{folders[0] / package} lies here" if folders else f"it isn't in this folder either ({Path().resolve()})"
    folder = shlex.quote(str(folders[0])) if folders else "DIR"
    return (
        f"_target_: {target} can't be imported: there is no module {package} on Python's path; {found}.\n"
        f"The folder that holds {package} must be on PYTHONPATH (or the package be installed: pip install -e ...):\n"
        f"  PYTHONPATH={folder} python main.py {shlex.join(words)}"
    )


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error` and what caused it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _key_of_others(group: Path, key: str, siblings: Iterable[str]) -> str | None:
    """Say which options of a group have a key, or one spelled like it that the chosen option hasn't."""
    owners: dict[str, list[str]] = {}
    for path in sorted(group.glob("*.yaml")):
        for name in re.findall(r"^(\w+):", path.read_text(encoding="utf-8"), re.MULTILINE):
            owners.setdefault(name, []).append(f"{group.name}={path.stem}")
    full_key = f"{group.name}.{key}"
    if key in owners:
        return f"{full_key}: no such key here; it is a key of {' and '.join(owners[key])}"
    meant = difflib.get_close_matches(key, [*siblings, *owners], n=1)
    if not meant or meant[0] in siblings:
        return None
    found = f"{group.name}.{meant[0]}"
    return f"{full_key}: there is no such key. Did you mean: {found}? It is a key of {' and '.join(owners[meant[0]])}"


def _source(conf: Path, key: str) -> str | None:
    """Return the root key that gives `task.<key>` its value, None where it has one of its own."""
    texts = (path.read_text(encoding="utf-8") for path in sorted((conf / "task").glob("*.yaml")))
    found = (re.search(rf"^  {re.escape(key)}: \$\{{(\w+)\}}", text, re.MULTILINE) for text in texts)
    return next((match[1] for match in found if match), None)


def _no_option(missing: str, options: list[str], conf: Path) -> str:
    group, _, option = missing.rpartition("/")
    lines = [f"{group}={option}: there is no such option.{_did_you_mean(option, options)}"]
    elsewhere = [f"{path.parent.name}={option}" for path in sorted(conf.glob(f"*/{option}.yaml"))]
    if elsewhere:
        lines[0] += f" There is {' and '.join(elsewhere)}."
    return "\n".join([*lines, f"Options of {group}: {', '.join(options)}"])


def _no_key(full_key: str, key: str, siblings: list[str], schemas: Mapping[str, type]) -> str:
    """Suggest a key of the same node; at the root, also one that only another task has."""
    owners: dict[str, str] = {}
    if full_key == key:
        names = {task: schema.__dataclass_fields__ for task, schema in schemas.items()}
        owners = {name: f"task={task}" for task, fields in names.items() for name in fields if name not in siblings}
    if key in owners:
        return f"{key}: no such key here; it is a key of {owners[key]}"
    hint = _did_you_mean(key, [*siblings, *owners], full_key.removesuffix(key))
    listed = ", ".join(sibling for sibling in siblings if sibling not in ("hydra", "_target_"))
    return f"{full_key}: there is no such key.{hint}" + ("" if hint else f"\nKeys here: {listed}")


def _did_you_mean(word: str, words: Iterable[str], prefix: str = "") -> str:
    close = [f"{prefix}{found}" for found in difflib.get_close_matches(word, list(words), n=2, cutoff=0.6)]
    return f" Did you mean: {' or '.join(close)}?" if close else ""


def _shortened(causes: list[BaseException]) -> str:
    """Join the texts of an error and its cause, without repetition, object types and advice to add keys."""
    lines: list[str] = []
    for line in (line.strip() for cause in causes[:2] for line in str(cause).splitlines()):
        if line not in ("", "None", *lines) and not _NOISE.match(line):
            lines.append(line)
    return "\n".join(lines[:_MAX_LINES])

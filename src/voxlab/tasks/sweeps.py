"""Which run is a job of a sweep, what the pages of a sweep are for, and which words go on with one."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from voxlab.errors import UserError
from voxlab.storage import read_status

_TABLE = "sweep.csv"  # which the jobs of a sweep renew as they end
_PAGES = {  # in the folder of a sweep -> what sets it apart
    "report.html": "settings, all figures, curves",
    "comparison.html": "this task's own comparison",
}


def sweep_of(run_dir: Path) -> Path | None:
    """Return the folder of the sweep that a run is a job of, None for a run of its own.

    How the run was launched decides: multirun.yaml is no sign of it, Hydra's own sweeper writes one and Optuna's none.
    A job that is resumed alone is launched as a run of its own; the table that was renewed before tells of its sweep.
    """
    launch = run_dir / ".hydra" / "hydra.yaml"
    is_job = launch.is_file() and _mode(launch) == "MULTIRUN"
    return run_dir.parent if is_job or (run_dir.parent / _TABLE).is_file() else None


def _mode(launch: Path) -> str:
    # `yaml.safe_load`, in C
    return yaml.load(launch.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["hydra"]["mode"]


def describe_pages(sweep_dir: Path) -> str:
    """Return the pages that a sweep has so far, with what each shows, on one line."""
    found = {sweep_dir / name: shows for name, shows in _PAGES.items() if (sweep_dir / name).is_file()}
    return ", ".join(f"{page} ({shows})" for page, shows in found.items())


def refuse_other_values(sweep_dir: Path, words: Sequence[str], has_several: Callable[[str], bool]) -> None:
    """Stop where a folder has runs of a sweep over other values: its numbers stand for other jobs than these words'.

    Args:
        sweep_dir: folder of a sweep that is to be started, or gone on with.
        words: of the command line.
        has_several: tells `shift=1,5` from `shift=5`.

    Raises:
        UserError: names both.
    """
    values = list(filter(has_several, _settings(words)))  # the numbers of the jobs follow from these
    for file in sorted(sweep_dir.glob("*/command.txt")):
        typed = _typed(file)
        before = list(filter(has_several, _settings(typed)))
        if before != values and {"-m", "--multirun"} & set(typed) and _is_kept(file.parent):
            raise UserError(
                f"{sweep_dir} is a sweep over {_spell(before)}, not over {_spell(values)}: its numbers stand for "
                f"other values.\nTo go on with it, type its own command ({file}). For more values, take another "
                f"folder and compare both:\n  python main.py task=compare runs='[{sweep_dir},<the other folder>]'"
            )


def _typed(command: Path) -> list[str]:
    """Return the words behind the program's name, whose launcher may have an -m of its own."""
    words = shlex.split(command.read_text(encoding="utf-8"))
    programs = [place for place, word in enumerate(words) if word == "voxlab" or word.endswith("main.py")]
    return words[programs[0] + 1 :] if programs else words


def _settings(words: Sequence[str]) -> list[str]:
    """Return the settings among some words, but those of Hydra itself and the options of launchers."""
    return [word for word in words if "=" in word and not word.startswith("-") and not word.startswith("hydra")]


def _spell(words: Sequence[str]) -> str:
    return " ".join(words) or "nothing"


def _is_kept(run_dir: Path) -> bool:
    """Tell whether a run is done, or can be gone on with."""
    return read_status(run_dir / "status.json").get("state") == "done" or any(run_dir.glob("checkpoints/*.ckpt"))

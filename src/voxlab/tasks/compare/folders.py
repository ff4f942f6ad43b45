"""Which folders hold runs, and which of those only compare others."""

import re
from collections.abc import Iterator
from pathlib import Path

_DEPTH = 3  # runs=outputs reaches outputs/<task>/<sweep>/<job>
_MARKS = ("status.json", ".hydra/config.yaml")  # a copy may lack the one, a job that could not start the other
_COMPARES = re.compile(rb"^stage: compare$|^  _target_: voxlab\.tasks\.compare\.", re.MULTILINE)


def runs_below(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Yield `folder` itself where it is a run, else the runs in it."""
    if is_run(folder):
        yield folder
    elif depth:
        for child in sorted(folder.iterdir(), key=natural):
            if child.is_dir() and not child.name.startswith("."):
                yield from runs_below(child, depth - 1)


def is_run(folder: Path) -> bool:
    """Tell whether a run has begun in this folder."""
    return any((folder / mark).is_file() for mark in _MARKS)


def compares(run: Path) -> bool:
    """Tell whether a run lays others side by side: task=compare, or stage=compare of any task."""
    config = run / "config.yaml"
    try:
        return config.is_file() and _COMPARES.search(config.read_bytes()) is not None
    except OSError:
        return False  # shown with the others, as a run whose configuration can't be read


def natural(path: Path) -> list[tuple[str, int]]:
    """Return a key that sorts shift5 before shift10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", str(path))]

"""Run folders by pattern: runs, sweeps, and whatever folders hold them, in any mix."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from voxlab.errors import UserError

_DEPTH = 3  # runs=outputs reaches outputs/<task>/<sweep>/<job>
_MARKS = ("status.json", ".hydra/config.yaml")  # a copy may lack the one, a job that could not start the other


def find_runs(patterns: str | Sequence[str] | None, own: Path) -> list[Path]:
    """Return the run folders that folders and glob patterns name, each once, numbers in names in their order.

    Args:
        patterns: relative to the working directory, or absolute.
        own: folder of the comparison itself, which is none of them.

    Raises:
        UserError: there is no pattern, one matches nothing, or no run is in what it matches.
    """
    if not patterns:
        raise UserError(f"task=compare needs run folders.\n{_advice()}")
    found: dict[Path, Path] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for folder in _runs_of(pattern, own):
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _runs_of(pattern: str, own: Path) -> list[Path]:
    folders = sorted((match for match in _matches(Path(pattern)) if match.is_dir()), key=natural)
    if not folders:
        raise UserError(f"runs={pattern}: no such folder.\n{_advice()}")
    runs = [run for folder in folders for run in runs_below(folder) if run.resolve() != own.resolve()]
    if not runs:
        raise UserError(f"runs={pattern}: no run in it (a run folder has status.json).\n{_advice()}")
    return runs


def _matches(pattern: Path) -> Iterable[Path]:
    if pattern.is_dir():
        return [pattern]
    top = Path(pattern.anchor)
    return top.glob(str(pattern.relative_to(top)))


def _advice() -> str:
    places = (path for path in Path("outputs").glob("*/*/status.json") if path.parts[1] != "compare")
    recent = sorted((path for path in places if not _failed(path)), key=lambda path: path.stat().st_mtime)[-3:]
    listed = ", ".join(str(path.parent) for path in recent) or "none here"
    return f"The latest runs: {listed}.\nGive run folders, a sweep's folder or a pattern: runs='outputs/laughter/*'"


def _failed(status: Path) -> bool:
    return json.loads(status.read_text(encoding="utf-8"))["state"] == "failed"


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


def natural(path: Path) -> list[tuple[str, int]]:
    """Return a key that sorts shift5 before shift10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", str(path))]

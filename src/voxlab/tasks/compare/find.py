"""Run folders by pattern: runs, sweeps, and whatever folders hold them, in any mix."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlab.errors import UserError
from voxlab.tasks.compare.advice import advise, near
from voxlab.tasks.compare.folders import compares, natural, runs_below


@dataclass(frozen=True)
class Found:
    """What folders and patterns name.

    Args:
        runs: their folders, each once.
        left_out: runs that themselves compare, and were not named one by one.
    """

    runs: list[Path]
    left_out: list[Path]


def find_runs(patterns: str | Sequence[str] | None, own: Path) -> list[Path]:
    """Return the run folders of `search`."""
    return search(patterns, own).runs


def search(patterns: str | Sequence[str] | None, own: Path) -> Found:
    """Find the run folders that folders and glob patterns name, each once, numbers in names in their order.

    Args:
        patterns: relative to the working directory, or absolute.
        own: folder of the comparison itself, which is none of them.

    Raises:
        UserError: there is no pattern, one matches nothing, or no run to compare is in what it matches.
    """
    if not patterns:
        raise UserError(f"task=compare needs run folders.\n{advise()}")
    runs: dict[Path, Path] = {}
    left_out: dict[Path, Path] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        found = _runs_of(pattern, own)
        for folders, into in ((found.runs, runs), (found.left_out, left_out)):
            for folder in folders:
                into.setdefault(folder.resolve(), folder)
    return Found(list(runs.values()), [folder for place, folder in left_out.items() if place not in runs])


def _runs_of(pattern: str, own: Path) -> Found:
    folders = sorted((match for match in _matches(Path(pattern)) if match.is_dir()), key=natural)
    if not folders:
        raise UserError(f"runs={pattern}: no such folder.\n{near(pattern)}{advise()}")
    runs = [run for folder in folders for run in runs_below(folder) if run.resolve() != own.resolve()]
    if not runs:
        raise UserError(f"runs={pattern}: no run in it (a run folder has status.json).\n{advise()}")
    kept = [run for run in runs if run == Path(pattern) or not compares(run)]
    if not kept:
        raise UserError(
            f"runs={pattern}: nothing to compare: it names only runs that themselves compare (task=compare or "
            f"stage=compare), {len(runs)} in all.\n{advise()}"
        )
    return Found(kept, [run for run in runs if run not in set(kept)])


def _matches(pattern: Path) -> Iterable[Path]:
    if pattern.is_dir():
        return [pattern]
    top = Path(pattern.anchor)
    return top.glob(str(pattern.relative_to(top)))

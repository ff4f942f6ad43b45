"""What to type instead of a pattern that finds no runs: a near name, the jobs that a sweep has, the latest runs."""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from voxlab.errors import UserError
from voxlab.storage import read_status
from voxlab.tasks.compare.folders import compares, is_run, natural

_LATEST = 3  # runs and sweeps that are offered
_JOBS = 12  # names in a line


def advise() -> str:
    """Return the latest runs and sweeps, of several tasks where there are some, and the ways to name runs."""
    listed = ", ".join(map(str, _latest(Path("outputs")))) or "none here"
    return f"The latest runs: {listed}.\nGive run folders, a sweep's folder or a pattern: runs='outputs/laughter/*'"


def near(pattern: str) -> str:
    """Return a line on what stands where a folder is missing: a near name, else the runs there; "" without either."""
    parts = Path(pattern).parts
    count = next((count for count in range(1, len(parts) + 1) if not Path(*parts[:count]).is_dir()), len(parts))
    above, missing, rest = Path(*parts[: count - 1]), parts[count - 1], parts[count:]
    beside = [child for child in above.iterdir() if child.is_dir()] if os.access(above, os.R_OK | os.X_OK) else []
    close = [] if missing.isdigit() else difflib.get_close_matches(missing, [child.name for child in beside], n=1)
    if close:
        return f"Did you mean runs='{above.joinpath(close[0], *rest)}'?\n"
    runs = [child.name for child in sorted(beside, key=natural) if is_run(child)]
    return "" if rest or not above.name or not runs else f"{above} has the runs {_list(runs)}.\n"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _JOBS else f"{', '.join(names[: _JOBS - 1])} … {names[-1]}"


def _latest(top: Path) -> list[Path]:
    """Return the folders of the latest runs, those of one task after those of others, and of sweeps, oldest first."""
    times: dict[Path, float] = {}
    for place, status in _finished(top):
        times[place] = max(times.get(place, 0.0), status.stat().st_mtime)
    ordered = sorted(times, key=lambda place: -times[place])
    tasks = [place.parent.name for place in ordered]
    turns = {place: tasks[:number].count(tasks[number]) for number, place in enumerate(ordered)}
    return sorted(sorted(ordered, key=lambda place: turns[place])[:_LATEST], key=lambda place: times[place])


def _finished(top: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the folder of a run, or of the sweep that it is a job of, and its status.json; none that failed."""
    for status in (*top.glob("*/*/status.json"), *top.glob("*/*/*/status.json")):
        task, name, *_ = status.relative_to(top).parts
        if task != "compare" and not compares(status.parent) and not _failed(status):
            yield top / task / name, status


def _failed(status: Path) -> bool:
    try:
        return read_status(status)["state"] == "failed"
    except UserError:  # a damaged run is none to offer
        return True

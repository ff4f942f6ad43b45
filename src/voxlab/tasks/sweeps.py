"""Which run is a job of a sweep, and what the pages of a sweep are for; the same for every sweeper of Hydra."""

from pathlib import Path

import yaml

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

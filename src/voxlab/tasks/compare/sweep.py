"""The page of a sweep, written anew when a job ends, whatever the task."""

from pathlib import Path

from voxlab.storage import write_settled
from voxlab.tasks.compare import page
from voxlab.tasks.compare.folders import runs_below
from voxlab.tasks.compare.groups import by_task
from voxlab.tasks.compare.runs import Run, read_runs

MEDIA = 8  # runs whose clips and plots are shown


def write_sweep_page(sweep_dir: Path) -> None:
    """Write report.html into the folder of a sweep."""

    def write(runs: list[Run]) -> None:
        page.write(sweep_dir / "report.html", f"Sweep {sweep_dir.name}", by_task(runs, None), MEDIA)

    write_settled(lambda: read_runs(list(runs_below(sweep_dir))), write)

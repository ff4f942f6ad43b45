"""Lay runs side by side: what differs, figures, curves, clips and plots.

python main.py task=compare runs='outputs/laughter/*'
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.parallel import Ranks

log = logging.getLogger(__name__)


def compare(
    *,
    runs: str | Sequence[str] | None,
    metrics: Sequence[str] | None,
    sort: str | None,
    media: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Print a table, and write comparison.csv and report.html.

    Args:
        runs: run folders, folders of sweeps, or patterns.
        metrics: figures of the table, * allowed; None: those that matter most.
        sort: figure that orders the runs, the best first; None: by name, those that failed last.
        media: runs whose clips and plots are shown, of those that have any, from the top of the table.
        dry_run: list the runs, and write nothing.
        ranks: this process among its peers; the first does it all.
        run_dir: folder of this run.

    Returns:
        How many runs there are and how they ended, and the files.

    Raises:
        UserError: no run is found, no run has such a figure.
    """
    if not ranks.is_first:
        return {}
    from voxlab.tasks.compare import figures, page, terminal
    from voxlab.tasks.compare.find import search
    from voxlab.tasks.compare.groups import by_task
    from voxlab.tasks.compare.runs import read_runs

    places = search(runs, run_dir)
    if places.left_out:
        log.info("left out, since they themselves compare (task=compare, stage=compare): %d", len(places.left_out))
    found = read_runs(places.runs)
    if dry_run:
        log.info("%d runs to compare:\n  %s", len(found), "\n  ".join(f"{run.folder}: {run.state}" for run in found))
        return {"runs": len(found)}
    if media < 0:
        raise UserError(f"media={media}: give 0 or more runs whose clips and plots are shown.")
    found.sort(key=lambda run: run.state == "failed")
    if sort is not None:
        found = [found[number] for number in figures.order([run.figures for run in found], sort)]
    groups = by_task(found, metrics)
    terminal.show(groups)
    table = page.write_table(run_dir / "comparison.csv", found)
    path = page.write(run_dir / "report.html", "Comparison", groups, media)
    states = {state: sum(run.state == state for run in found) for state in ("done", "failed")}
    return {"runs": len(found), **states, "table": str(table), "report": str(path)}

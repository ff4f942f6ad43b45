"""The runs of a sweep side by side: figures over shift and loss, differences on the same resamples, one page.

python main.py task=laughter stage=compare runs=outputs/laughter/<stamp>; a sweep does it by itself after each job.
"""

import json
import logging
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from voxlab import plots, report, storage
from voxlab.errors import UserError
from voxlab.metrics import bootstrap, ranking
from voxlab.metrics.events import pool
from voxlab.report import Cell, Section
from voxlab.tasks.laughter.charts import GREY, add_reference, add_shared_legend, make_figure, style
from voxlab.tasks.laughter.labels import label
from voxlab.tasks.laughter.measures import draw_ranking
from voxlab.tasks.laughter.outputs import read_predictions
from voxlab.tasks.laughter.report import caveats, interval_text
from voxlab.tasks.train_tokenizer.files import write_csv

log = logging.getLogger(__name__)

_FIGURES = ("test/ap_lift", "test/auroc", "test/f1", "test/event/recall_at_5_fa_per_hour")  # with intervals, and drawn
_MORE = ("test/ap", "test/macro/ap", "test/macro/auroc", "test/event/recall", "test/event/fa_per_hour")
_MORE += ("test/event/lead_s/mean", "test/prior", "threshold")
_NAMES = {"loss": "name", "model": "family"}  # of these parts one key names the rest
_TYPED = {"BinaryCrossEntropy": "bce", "Focal": "focal", "AdaptiveFocal": "adaptive_focal"}  # loss=...
_CHANCE = {"test/ap_lift": 1.0, "test/auroc": 0.5}
_LABEL_CHARACTERS = 30  # of a line beside an axis
_DODGE = 0.6  # of the distance between two shifts, which the runs of one share
_DERIVED = ("labels.shift", "loss.negative_weight", "loss.positive_weight", "step")


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep.

    Args:
        folder: of the run.
        metrics: its metrics.json.
        group: what sets it apart from others besides the shift.
        shift: frames.
    """

    folder: Path
    metrics: Mapping[str, Any]
    group: str
    shift: int

    @property
    def label(self) -> str:
        """Its number in the sweep and what it is."""
        return f"{self.folder.name}: {self.group}, shift {self.shift}"


def compare(runs: Path, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Write comparison.csv, comparison.html and shift_sweep.png into the folder of a sweep.

    Args:
        runs: folder with one folder for each run.
        resamples: of the differences; 0: without intervals.
        seed: of the resamples.

    Returns:
        Number of runs, the best of them by AP over the prior, and the files.

    Raises:
        UserError: no run in the folder has been evaluated on test.
    """
    jobs = read_jobs(runs)
    differences = list(_differences(jobs, resamples, seed))
    storage.atomic_write_bytes(runs / "comparison.csv", write_csv([_row(job) for job in jobs]))
    storage.atomic_write_bytes(runs / "differences.csv", write_csv(differences))
    image = plots.render_png(plot_shifts(jobs))
    storage.atomic_write_bytes(runs / "shift_sweep.png", image)
    sections = [*_notices(jobs), report.figure("Over the shift", image, _CAPTION), _table(jobs)]
    sections += [_baselines(jobs), *_difference_table(differences)]
    page = report.write_report(runs / "comparison.html", "Laughter prediction", f"{len(jobs)} runs of {runs}", sections)
    known = [job for job in jobs if job.metrics["test/ap_lift"] is not None]
    best = max(known, key=lambda job: job.metrics["test/ap_lift"], default=None)
    return {"runs": len(jobs), "best_ap_lift": best and best.label, "page": str(page)}


_CAPTION = (
    "Bars: 95 % intervals over the shows of test. A larger shift has more positive frames: compare AP over the prior."
)


def read_jobs(runs: Path) -> list[Job]:
    """Return the runs of a folder that were evaluated on test, by name, numbers in it in their order.

    Raises:
        UserError: there are none.
    """
    paths = sorted(runs.glob("*/metrics.json"), key=lambda path: _natural(path.parent.name))
    read = {path.parent: metrics for path in paths if (metrics := _read_metrics(path))}
    evaluated = {folder: metrics for folder, metrics in read.items() if "test/ap" in metrics and "labels" in metrics}
    found = {folder: {**metrics, "loss": _typed(metrics["loss"])} for folder, metrics in evaluated.items()}
    if not found:
        raise UserError(
            f"runs={runs}: none of the {len(read)} runs in this folder was evaluated on a test split. Give the folder "
            "of a sweep, e.g. that of `python main.py -m task=laughter shift=1,5,10`: outputs/laughter/<stamp>."
        )
    groups = _name_groups(list(found.values()))
    shifts = [int(metrics["labels"]["shift"]) for metrics in found.values()]
    rows = zip(found.items(), groups, shifts, strict=True)
    return [Job(folder, metrics, group, shift) for (folder, metrics), group, shift in rows]


def _read_metrics(path: Path) -> dict[str, Any]:
    """Return the figures of a run; none where they can't be read, so that the runs after it don't fail for that."""
    try:
        return storage.read_object(path)
    except UserError as error:
        log.warning("left out of the comparison: %s", error)
        return {}


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts focal-shift5 before focal-shift10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def _typed(loss: Mapping[str, Any]) -> dict[str, Any]:
    """Return a loss with the name that `loss=...` takes."""
    name = _TYPED.get(loss["name"], loss["name"])
    return {**loss, "name": "focal_sum" if name == "focal" and loss.get("reduction") == "sum" else name}


def _name_groups(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Spell for each run what differs between runs, besides the shift; the loss where nothing does."""
    parts = ("loss", "model", "features", "labels", "sampling", "optim", "fit", "loop", "seed")
    flat = [storage.flatten({part: job[part] for part in parts if part in job}) for job in jobs]
    keys = dict.fromkeys(key for job in flat for key in job)
    varied = [key for key in keys if key not in _DERIVED and len({repr(job.get(key)) for job in flat}) > 1]
    varied = [key for key in varied if not _is_named(key, flat)] or ["loss.name"]
    return [", ".join(_spell(key, job) for key in varied) for job in flat]


def _is_named(key: str, jobs: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the name of the loss or model already says the value of this key."""
    part = key.partition(".")[0]
    name = f"{part}.{_NAMES.get(part)}"
    values: dict[str, set[str]] = {}
    for job in jobs:
        values.setdefault(str(job.get(name)), set()).add(repr(job.get(key)))
    return part in _NAMES and key != name and all(len(group) == 1 for group in values.values())


def _spell(key: str, job: Mapping[str, Any]) -> str:
    part, _, last = key.rpartition(".")
    value = job.get(key, "-")
    return str(value) if _NAMES.get(part) == last else f"{key}={value}"


def _row(job: Job) -> dict[str, Any]:
    row: dict[str, Any] = {"run": job.folder.name, "group": job.group, "shift": job.shift}
    for name in ("test/ap", *_FIGURES, *_MORE[1:]):
        row[name] = job.metrics.get(name)
        if ends := job.metrics.get(f"{name}/ci"):
            row |= {f"{name}/low": ends[0], f"{name}/high": ends[1]}
    return row


def _notices(jobs: Sequence[Job]) -> Iterator[Section]:
    having: dict[str, list[str]] = {}
    for job in jobs:
        for text in caveats(job.metrics):
            having.setdefault(text, []).append(job.folder.name)
    for text, names in having.items():
        yield report.notice(text if len(names) == len(jobs) else f"Of {', '.join(names)}: {text}")
    stores = {json.dumps(job.metrics.get("features"), sort_keys=True) for job in jobs}
    if len(stores) > 1:
        yield report.notice("The runs read different features.", "info")
    if len({tuple(job.metrics.get(f"test/{name}") for name in ("episodes", "frames")) for job in jobs}) > 1:
        yield report.notice("The runs were tested on different episodes: their figures can't be compared.")
    if reason := next((job.metrics[key] for job in jobs if (key := "test/ci/reason") in job.metrics), None):
        yield report.notice(f"No intervals: {reason}.", "info")


def plot_shifts(jobs: Sequence[Job]) -> Figure:
    """Draw each figure over the shift, one line for each group, with its interval; groups stand side by side."""
    chart = make_figure("Test figures over the shift; bars: 95 % intervals over shows", (9.0, 5.6))
    groups = list(dict.fromkeys(job.group for job in jobs))
    shifts = sorted({job.shift for job in jobs})
    beside = (np.arange(len(groups)) - (len(groups) - 1) / 2) * _DODGE / max(len(groups), 3)
    for place, name in enumerate(_FIGURES):
        axes = chart.add_subplot(2, 2, place + 1, facecolor="none")
        style(axes, "shift (frames of 80 ms)", textwrap.fill(label(name), _LABEL_CHARACTERS))
        for group, offset in zip(groups, beside, strict=True):
            own = sorted((job for job in jobs if job.group == group), key=lambda job: job.shift)
            _draw_line(axes, own, name, group, {shift: index + offset for index, shift in enumerate(shifts)})
        if name in _CHANCE:
            add_reference(axes, [-0.5, len(shifts) - 0.5], [_CHANCE[name]] * 2)
        axes.set_xticks(range(len(shifts)), [str(shift) for shift in shifts])
        axes.set_xlim(-0.5, len(shifts) - 0.5)
    handles, _ = chart.axes[0].get_legend_handles_labels()
    add_shared_legend(chart, [*handles, Line2D([], [], color=GREY, linestyle="--", label="chance")], 4)
    return chart


def _draw_line(axes: Axes, jobs: Sequence[Job], name: str, group: str, places: Mapping[int, float]) -> None:
    points = [(places[job.shift], job.metrics.get(name), job.metrics.get(f"{name}/ci")) for job in jobs]
    known = [(place, value, ends or (value, value)) for place, value, ends in points if value is not None]
    if not known:
        axes.plot([], [], label=f"{group} (not defined)")
        return
    x, values, ends = zip(*known, strict=True)
    middle, (low, high) = np.array(values), np.array(ends, dtype=np.float64).T
    # a percentile interval may lie beside the value; a bar has no negative length
    bars = np.maximum([middle - low, high - middle], 0)
    axes.errorbar(x, middle, bars, marker="o", markersize=3, linewidth=1.0, capsize=2, label=group)


def _table(jobs: Sequence[Job]) -> Section:
    """Show the figures, their 95 % intervals below them."""
    names = ("test/ap", *_FIGURES, *_MORE[1:])
    rows = [[job.label, *(_cell(job, name) for name in names)] for job in jobs]
    return report.table("Runs, with 95 % intervals", ["run", *map(label, names)], rows)


def _cell(job: Job, name: str) -> Cell:
    return Cell(job.metrics.get(name), interval_text(job.metrics.get(f"{name}/ci")) or "")


def _baselines(jobs: Sequence[Job]) -> Section:
    names = sorted({key.split("/")[1] for job in jobs for key in job.metrics if key.startswith("baseline/")})
    rows = [
        [job.label, job.metrics["test/ap"], *(job.metrics.get(f"baseline/{name}/ap") for name in names)] for job in jobs
    ]
    return report.table(
        "AP beside that of the baselines", ["run", "AP", *(name.replace("_", " ") for name in names)], rows
    )


def _differences(jobs: Sequence[Job], resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Hold the runs of each shift against the first of them, on the same resamples of shows."""
    for shift in sorted({job.shift for job in jobs}):
        first, *others = [job for job in jobs if job.shift == shift]
        for other in others:
            yield difference(first, other, resamples, seed)


def difference(first: Job, second: Job, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return by how much AP and AUROC of the second run are above those of the first, with paired intervals.

    Intervals are None where the runs were tested on other frames or other labels, or on too few shows.
    """
    tables = [_read_table(job) for job in (first, second)]
    row: dict[str, Any] = {"shift": first.shift, "run": second.label, "minus": first.label}
    paired = tables[0][1:] == tables[1][1:]
    names = tables[0][1]
    weights = bootstrap.draw_counts(len(names), resamples=resamples, seed=seed)
    drawn = None
    if paired and resamples and len(names) >= bootstrap.MIN_CLUSTERS:
        drawn = [draw_ranking(table, weights) for table, _, _ in tables]
    for name in ("ap", "auroc"):
        values = [job.metrics[f"test/{name}"] for job in (second, first)]
        row[name] = None if None in values else values[0] - values[1]
        low, high = bootstrap.interval(drawn[1][name] - drawn[0][name]) if drawn else (float("nan"),) * 2
        row |= {f"{name}/low": None if np.isnan(low) else low, f"{name}/high": None if np.isnan(high) else high}
    return row


def _read_table(job: Job) -> tuple[ranking.RankTable, list[str], list[tuple[str, int, int]]]:
    """Return counts by show, the shows, and what was tested: episodes with their frames and positives."""
    episodes = read_predictions(job.folder, "test")
    frames = pool(episodes)
    cluster, names = bootstrap.number_clusters([episode.show for episode in episodes])
    table = ranking.rank_table(frames.logit, frames.y, cluster[frames.episode], len(names))
    return table, names, [(each.key, int(each.mask.sum()), int((each.y * each.mask).sum())) for each in episodes]


def _difference_table(differences: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    if not differences:
        return
    rows = []
    for row in differences:
        cells = [row["run"], row["minus"]]
        for name in ("ap", "auroc"):
            low, high = row[f"{name}/low"], row[f"{name}/high"]
            cells += [row[name], interval_text(None if low is None else (low, high))]
        rows.append(cells)
    columns = ["run", "minus", "AP", "95 % interval of AP", "AUROC", "95 % interval of AUROC"]
    yield report.table("Differences on the same resamples of shows", columns, rows)

"""The comparison as one page and as a table in a file."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from os.path import relpath
from pathlib import Path
from typing import Any

from voxlab import report
from voxlab.report import Cell, Section, spell
from voxlab.storage import atomic_write_bytes
from voxlab.tasks.compare import curves, differences, figures, media, notices
from voxlab.tasks.compare.differences import Rows
from voxlab.tasks.compare.figures import Figure
from voxlab.tasks.compare.groups import Group
from voxlab.tasks.compare.labels import titled
from voxlab.tasks.compare.runs import Run
from voxlab.tasks.train_tokenizer.files import write_csv

_PAGE = "report.html"
_OWN_PAGE = "comparison.html"  # which some tasks write for their sweeps
_NOTE_CHARACTERS = 100
_SETTINGS = 25  # more that differ are among the details
_PACKAGES = 40


def write(path: Path, title: str, groups: Sequence[Group], shown: int) -> Path:
    """Write the page.

    Args:
        path: of the page.
        title: its heading.
        groups: the runs, by task.
        shown: so many runs, of those that have any, from the top of the table, show their clips and plots.
    """
    runs = [run for group in groups for run in group.runs]
    tables = [section for group in groups for section in _group(group, path.parent, alone=len(groups) == 1)]
    parts = [*_notices(runs, groups), *tables, *media.sections(runs, shown)]
    tasks = ", ".join(group.task for group in groups)
    subtitle = f"{len(runs)} runs of {tasks}" if len(runs) > 1 else f"1 run of {tasks}"
    return report.write_report(path, title, subtitle, [*parts, *_own_pages(runs, path.parent), _details(groups, runs)])


def _group(group: Group, folder: Path, *, alone: bool) -> Iterator[Section]:
    suffix = "" if alone else f": {group.task}"
    yield _table(f"Runs{suffix}", group, folder)
    if group.settings:
        yield _differences(f"What differs{suffix}", dict(list(group.settings.items())[:_SETTINGS]), group.runs)
    yield from curves.sections(f"Curves{suffix}", group.runs)


def _notices(runs: Sequence[Run], groups: Sequence[Group]) -> Iterator[Section]:
    undone = [run for run in runs if run.state != "done"]
    if undone:
        listed = ", ".join(f"{run.label} ({run.state})" for run in undone)
        yield report.notice(f"{len(undone)} of {len(runs)} runs are not done and have no figures: {listed}.")
    told = (text for group in groups for text in notices.about(group, [run.label for run in group.runs]))
    yield from map(report.notice, dict.fromkeys(told))
    code = differences.code(runs)
    if "commit" in code:
        yield report.notice("The runs were made by different versions of the code; see the details.", "info")


def _table(title: str, group: Group, folder: Path) -> Section:
    """Show state and figures of each run; the best value of each figure stands out."""
    arrows = {1: " ↑", -1: " ↓", 0: ""}
    named = (titled(group.task, name, arrows[figures.direction(name)]) for name in group.names)
    columns = ["run", "state", "time", *named]
    rows = []
    for run in group.runs:
        cells = [_cell(run.figures.get(name), group.best[name]) for name in group.names]
        rows.append([_name(run, folder), _state(run), _duration(run.seconds), *cells])
    return report.table(title, columns, rows)


def _name(run: Run, folder: Path) -> Cell:
    has_page = (run.folder / _PAGE).is_file()
    link = relpath(run.folder / _PAGE, folder) if has_page else ""
    return Cell(run.label, _cut(run.about), link=link)


def _state(run: Run) -> Cell:
    return Cell(run.state, _cut(run.error), tone="" if run.state == "done" else "bad")


def _cut(text: str) -> str:
    return text if len(text) <= _NOTE_CHARACTERS else f"{text[: _NOTE_CHARACTERS - 1]}…"


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _cell(figure: Figure | None, best: float | None) -> Cell:
    if figure is None:
        return Cell(None)
    note = " to ".join(map(spell, figure.interval)) if figure.interval else ""
    return Cell(figure.value, note, tone="best" if figure.value == best else "")


def _differences(title: str, rows: Rows, runs: Sequence[Run]) -> Section:
    """Show a row for each run, or for each thing where that makes the narrower table."""
    if len(rows) > len(runs):
        lines = [[name, *values] for name, values in rows.items()]
        return report.table(title, ["", *(run.label for run in runs)], lines)
    lines = [[run.label, *values] for run, values in zip(runs, zip(*rows.values(), strict=True), strict=True)]
    return report.table(title, ["run", *rows], lines)


def _own_pages(runs: Sequence[Run], folder: Path) -> Iterator[Section]:
    """Link to the pages that tasks have written for whole sweeps."""
    pages = dict.fromkeys(run.folder.absolute().parent / _OWN_PAGE for run in runs)
    found = [page for page in pages if page.is_file()]
    if found:
        rows = [[Cell(str(page.parent.name), link=relpath(page, folder))] for page in found]
        yield report.table("Pages of the sweeps, with more on their task", ["sweep"], rows)


def _details(groups: Sequence[Group], runs: Sequence[Run]) -> Section:
    code, packages = differences.code(runs), differences.packages(runs)
    parts = [_all_figures(group) for group in groups]
    many = [group for group in groups if len(group.settings) > _SETTINGS]
    parts += [
        _differences(f"All that differs between runs of {group.task}", group.settings, group.runs) for group in many
    ]
    if code:
        parts.append(_differences("Code and machine: what differs", code, runs))
    same = {name: value for name, value in runs[0].code.items() if name not in code}
    parts.append(report.facts("Code and machine: the same in all runs", same))
    if packages:
        listed = dict(list(packages.items())[:_PACKAGES])
        parts.append(_differences(f"Packages: {len(packages)} differ", listed, runs))
    parts += [report.code(run.error, f"Error of {run.title}") for run in runs if run.error]
    return report.folds("Details", parts)


def _all_figures(group: Group) -> Section:
    names = dict.fromkeys(chain.from_iterable(run.figures for run in group.runs))
    rows = [[titled(group.task, name), *(_cell(run.figures.get(name), None) for run in group.runs)] for name in names]
    return report.table(
        f"All {len(rows)} figures of {group.task}", ["figure", *(run.label for run in group.runs)], rows
    )


def write_table(path: Path, runs: Sequence[Run]) -> Path:
    """Write a CSV file with a row for each run: state, differing settings, every figure with its interval."""
    settings = differences.settings(runs)
    rows = [
        {
            **{"run": run.label, "folder": str(run.folder), "task": run.task, "state": run.state},
            **{"started": run.started, "seconds": run.seconds, "error": run.error.partition("\n")[0]},
            **{key: values[number] for key, values in settings.items() if key != "task"},
            **_flat(run.figures),
        }
        for number, run in enumerate(runs)
    ]
    atomic_write_bytes(path, write_csv(rows))
    return path


def _flat(values: Mapping[str, Figure]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, figure in values.items():
        flat[name] = figure.value
        if figure.interval:
            flat |= {f"{name}/low": figure.interval[0], f"{name}/high": figure.interval[1]}
    return flat

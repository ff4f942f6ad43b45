"""The comparison in the terminal: rows of runs, columns of runs where only that fits, else several tables."""

from collections.abc import Iterator, Sequence
from itertools import chain

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxlab.report import spell
from voxlab.tasks.compare import notices
from voxlab.tasks.compare.differences import Rows
from voxlab.tasks.compare.figures import Figure
from voxlab.tasks.compare.groups import Group
from voxlab.tasks.compare.runs import Run

_SETTINGS = 4  # more differing settings than so are left to the page
_LABEL, _VALUE = 20, 28  # characters; with a longer run all get numbers, a longer setting loses its middle
_GAP = 2  # characters between columns

Grid = list[list[Text]]  # rows of cells, the first of them and the first cell of each are headings


def show(groups: Sequence[Group], console: Console | None = None) -> None:
    """Print state, differing settings and figures of the runs, as wide as the console; the best of each stands out."""
    console = console or Console()
    for group in groups:
        if len(groups) > 1:
            console.print(Text(f"\ntask={group.task}", style="bold"))
        grid = _grid(group)
        turned = [list(column) for column in zip(*grid, strict=True)]
        by_run = _width(grid) <= console.width or _width(turned) > console.width
        telling = [place for place, title in enumerate(grid[0]) if title.plain in _settings(group)]
        parts = _parts(grid, console.width, telling) if by_run else _parts(turned, console.width)
        for number, part in enumerate(parts):
            if number:
                console.print()
            console.print(_table(part, group.names))
        warnings = (f"Warning: {text}" for text in notices.about(group, _names(group.runs)))
        for line in chain(_explain(group, "column" if by_run else "row"), warnings):
            console.print(Text(line))


def _grid(group: Group) -> Grid:
    """Return a row for each run: its name, its state where not all are done, settings, figures."""
    settings = _settings(group)
    is_whole = all(run.state == "done" for run in group.runs)
    rows = [[Text(title) for title in ("run", *([] if is_whole else ["state"]), *settings, *group.names)]]
    for number, (run, name) in enumerate(zip(group.runs, _names(group.runs), strict=True)):
        state = [] if is_whole else [Text(_state(run), style="" if run.state == "done" else "red")]
        own = [Text(_spell(values[number])) for values in settings.values()]
        cells = [_figure(run.figures.get(figure), group.best[figure]) for figure in group.names]
        rows.append([Text(name), *state, *own, *cells])
    return rows


def _settings(group: Group) -> Rows:
    """Return the differing settings that the table has room for."""
    return dict(list(group.settings.items())[:_SETTINGS])


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the labels of the runs, or numbers where one is long."""
    is_short = all(cell_len(run.label) <= _LABEL for run in runs)
    return [run.label if is_short else f"[{number}]" for number, run in enumerate(runs, 1)]


def _state(run: Run) -> str:
    """Return the state without its reason, which stands below the table."""
    return run.state.partition(":")[0].partition(";")[0]


def _widths(grid: Grid) -> list[int]:
    return [max(cell.cell_len for cell in column) + _GAP for column in zip(*grid, strict=True)]


def _width(grid: Grid) -> int:
    return sum(_widths(grid))


def _parts(grid: Grid, width: int, telling: Sequence[int] = ()) -> Iterator[Grid]:
    """Yield the table in parts that fit the console, each with the first column and those that tell what a run is.

    Args:
        grid: the table.
        width: of the console.
        telling: columns that later parts repeat, as many of them as leave room for any other.
    """
    widths = _widths(grid)
    kept, widest = [0], max((own for place, own in enumerate(widths) if place not in telling), default=0)
    for place in telling:
        if sum(widths[held] for held in (*kept, place)) + widest <= width:
            kept.append(place)
    shown, used = [0], widths[0]
    for place, own in enumerate(widths[1:], 1):
        if used + own > width and set(shown) - set(kept):
            yield [[row[column] for column in shown] for row in grid]
            shown = [column for column in kept if column < place]
            used = sum(widths[column] for column in shown)
        shown.append(place)
        used += own
    yield [[row[column] for column in shown] for row in grid]


def _table(grid: Grid, figures: Sequence[str]) -> Table:
    """Return rows as a table without lines; `figures` are titles of columns that align right."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    head, *rows = grid
    for title in head:
        table.add_column(title, justify="right" if title.plain in figures else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _explain(group: Group, line: str) -> Iterator[str]:
    """Yield what the marks in the table mean, those that it has, and what of names and states it has no room for."""
    shown = [run.figures[name] for run in group.runs for name in group.names if name in run.figures]
    has = {
        f"* best of its {line}": any(best is not None for best in group.best.values()),
        "[low, high]: 95 % interval": any(figure.interval for figure in shown),
        "- none": any(name not in run.figures for run in group.runs for name in group.names),
    }
    if notes := "; ".join(note for note, is_there in has.items() if is_there):
        yield notes
    for run, name in zip(group.runs, _names(group.runs), strict=True):
        reason = f": {run.state}" if run.state != _state(run) else ""
        if name != run.label or reason:
            yield f"{name}: {run.folder}{reason}" if name != run.label else f"{name}{reason}"


def _spell(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _VALUE else f"{text[:8]}…{text[9 - _VALUE :]}"


def _figure(figure: Figure | None, best: float | None) -> Text:
    if figure is None:
        return Text("-")
    ends = f" [{', '.join(map(spell, figure.interval))}]" if figure.interval else ""
    is_best = figure.value == best
    return Text(f"{spell(figure.value)}{'*' if is_best else ''}{ends}", style="bold green" if is_best else "")

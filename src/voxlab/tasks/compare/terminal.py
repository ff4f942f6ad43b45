"""The comparison in the terminal; plain columns, as wide as they need to be, where the output goes to a file."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxlab.tasks.compare.figures import Figure
from voxlab.tasks.compare.groups import Group
from voxlab.tasks.compare.runs import Run

_SETTINGS = 4  # more differing settings than so are left to the page
_PLAIN_WIDTH = 1000  # characters, of a file


def show(groups: Sequence[Group], console: Console | None = None) -> None:
    """Print a row for each run: state, differing settings, figures; the best of each figure stands out."""
    console = console or Console()
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    for group in groups:
        if len(groups) > 1:
            console.print(Text(f"\ntask={group.task}", style="bold"))
        console.print(_table(group, plain=not console.is_terminal))
        if notes := _explain(group):
            console.print(Text(notes))


def _table(group: Group, *, plain: bool) -> Table:
    settings = dict(list(group.settings.items())[:_SETTINGS])
    table = Table(box=None if plain else SIMPLE, pad_edge=False)
    for title in ("run", "state", *settings):
        table.add_column(Text(title), overflow="fold")
    for name in group.names:
        table.add_column(Text(name), justify="right", overflow="fold")
    for number, run in enumerate(group.runs):
        own = [Text(_spell(values[number])) for values in settings.values()]
        cells = [_figure(run.figures.get(name), group.best[name]) for name in group.names]
        table.add_row(Text(run.label), _state(run), *own, *cells)
    return table


def _explain(group: Group) -> str:
    """Say what the marks in the table mean, those that it has."""
    shown = [run.figures[name] for run in group.runs for name in group.names if name in run.figures]
    has = {
        "* best of its column": any(best is not None for best in group.best.values()),
        "[low, high]: 95 % interval": any(figure.interval for figure in shown),
        "- none": any(name not in run.figures for run in group.runs for name in group.names),
    }
    return "; ".join(note for note, is_there in has.items() if is_there)


def _state(run: Run) -> Text:
    return Text(run.state, style="" if run.state == "done" else "red")


def _spell(value: object) -> str:
    return "-" if value is None else str(value)


def _figure(figure: Figure | None, best: float | None) -> Text:
    if figure is None:
        return Text("-")
    value = f"{figure.value:,}" if isinstance(figure.value, int) else f"{figure.value:.4g}"
    ends = " [{:.3g}, {:.3g}]".format(*figure.interval) if figure.interval else ""
    is_best = figure.value == best
    return Text(f"{value}{'*' if is_best else ''}{ends}", style="bold green" if is_best else "")

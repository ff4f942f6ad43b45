"""What all plots of `task=laughter` share: title, axes, legend, reference lines, the figure with nothing to draw."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from voxlab.plots import INK

FLAT, TALL = (9.0, 2.9), (9.0, 3.9)  # inches
GREY = "#9aa1ab"
CHOSEN = "#d1495b"  # whatever the chosen threshold does

_TITLE_CHARACTERS = 110
_LEGEND = {"fontsize": 7, "labelcolor": INK, "frameon": False, "columnspacing": 1.2, "borderaxespad": 0.3}


def make_chart(title: str, xlabel: str, ylabel: str, size: tuple[float, float] = FLAT) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes and a title, in colours that suit light and dark pages."""
    chart = make_figure(title, size)
    axes = chart.add_subplot(facecolor="none")
    style(axes, xlabel, ylabel)
    return chart, axes


def make_figure(title: str, size: tuple[float, float]) -> Figure:
    """Make a figure with a title and no axes yet; a long title is cut."""
    chart = Figure(figsize=size, facecolor="none", layout="constrained")
    shown = title if len(title) <= _TITLE_CHARACTERS else f"{title[: _TITLE_CHARACTERS - 1]}…"
    # a name may hold a dollar sign, which is no formula
    chart.suptitle(shown, x=0.01, ha="left", fontsize=9, color=INK, parse_math=False)
    return chart


def style(axes: Axes, xlabel: str = "", ylabel: str = "") -> None:
    """Set labels, colours and few ticks."""
    axes.set_xlabel(xlabel, color=INK, fontsize=8)
    axes.set_ylabel(ylabel, color=INK, fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.tick_params(which="both", colors=INK, labelsize=8)
    axes.spines[:].set(color=INK, linewidth=0.6)


def add_legend(axes: Axes, handles: Sequence[Artist] | None = None) -> None:
    """Explain what is drawn in a line above the axes; `handles` None: everything with a label."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, **_LEGEND}
    axes.legend(**place) if handles is None else axes.legend(handles=list(handles), **place)


def add_shared_legend(chart: Figure, handles: Sequence[Artist], columns: int) -> None:
    """Explain all axes of a figure in one place, below them: above is the title."""
    chart.legend(handles=list(handles), loc="outside lower left", ncols=columns, **_LEGEND)


def add_reference(axes: Axes, x: Sequence[float], y: Sequence[float], label: str = "") -> None:
    """Draw what a guess or an ideal would give."""
    axes.plot(x, y, linestyle="--", linewidth=0.8, color=GREY, marker="", label=label or None)


def show_shares(axes: Axes, *, x: bool = False) -> None:
    """Let an axis of shares reach from 0 to 1, with ticks at both; `x`: the horizontal one as well."""
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks(ticks)
    if x:
        axes.set_xlim(-0.01, 1.01)
        axes.set_xticks(ticks)


def show_decades(axis: object) -> None:
    """Write numbers like 0.05 on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))  # type: ignore[attr-defined]
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # type: ignore[attr-defined]
    axis.set_minor_locator(LogLocator(subs=()))  # type: ignore[attr-defined]


def blank(title: str, xlabel: str, ylabel: str, reason: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    chart, axes = make_chart(title, xlabel, ylabel)
    axes.text(0.5, 0.5, reason, ha="center", va="center", color=INK, transform=axes.transAxes)
    return chart

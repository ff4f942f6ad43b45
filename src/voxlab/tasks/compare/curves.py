"""Curves of training, those of all runs over one another."""

import re
from collections.abc import Sequence

from voxlab import plots, report
from voxlab.report import Media, Section
from voxlab.tasks.compare.labels import label
from voxlab.tasks.compare.runs import Run
from voxlab.tasks.history import curve
from voxlab.tasks.laughter.charts import make_chart

_COLOURS = (  # told apart on light and on dark pages, also by most who see few colours
    *("#4477dd", "#e0702d", "#2a9d6e", "#c9487f", "#8d6be0", "#a3862c", "#1f9fc4", "#d1493f", "#7a818c", "#5f9e2f"),
)
_STYLES = ("-", "--", ":", "-.")  # of each round through the colours
_SIZE = (5.4, 2.5)  # inches
_FEW_POINTS = 30  # each is marked
_CHARTS = 12
_SKIPPED = re.compile(
    r"step|train/epoch|([^/]*/)?(lr|learning_rate|prior|\w+_per_s(econd)?)"
)  # tell nothing of quality


def sections(title: str, runs: Sequence[Run]) -> list[Section]:
    """Return the colours of the runs and a chart of each name of their history.jsonl; nothing without histories."""
    histories = [run.history for run in runs]
    names = _names(histories)
    if not names:
        return []
    drawn = [number for number, rows in enumerate(histories) if rows]
    colours = {runs[number].title: _COLOURS[place % len(_COLOURS)] for place, number in enumerate(drawn)}
    task = runs[drawn[0]].task
    charts = [_draw(task, name, [histories[number] for number in drawn]) for name in names]
    return [report.legend(title, colours), report.gallery("", charts)]


def _names(histories: Sequence[Sequence[dict[str, float]]]) -> list[str]:
    """Return what was logged for the whole model, validation first; parts like vq/use/3 would be too many."""
    present = dict.fromkeys(name for rows in histories for row in rows for name in row)
    whole = [name for name in present if name.count("/") == 1 and not _SKIPPED.fullmatch(name)]
    return sorted(whole, key=lambda name: (not name.startswith("val/"), not name.endswith("loss")))[:_CHARTS]


def _draw(task: str, name: str, histories: Sequence[Sequence[dict[str, float]]]) -> Media:
    chart, axes = make_chart("", "step", "", _SIZE)
    for place, rows in enumerate(histories):
        x, y = curve(rows, name)
        turn, colour = divmod(place, len(_COLOURS))
        mark = "." if len(x) < _FEW_POINTS else ""
        axes.plot(x, y, color=_COLOURS[colour], linestyle=_STYLES[turn % len(_STYLES)], linewidth=1.2, marker=mark)
    words = label(task, name)
    return Media(words or name, "image/png", plots.render_png(chart), name if words else "")

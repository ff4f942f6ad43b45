"""The curves of a training run, for its page."""

from pathlib import Path

from voxlab.report import Section, figure
from voxlab.tasks.history import FILE, curve, read_history
from voxlab.tasks.laughter.charts import add_legend, add_reference, make_chart

_CURVES = {  # title -> (names, unit)
    "Loss": (("train/loss", "val/loss"), "loss"),
    "Validation": (("val/ap", "val/prior"), "average precision"),
    "Validation AUROC": (("val/auroc",), "AUROC"),
    "Gradient norm": (("train/grad_norm",), "norm"),
    "Learning rate": (("train/lr",), "rate"),
    "Speed": (("train/frames_per_s",), "frames a second"),
}
_REFERENCES = ("val/prior",)
_FEW_POINTS = 50  # each is marked


def sections(run_dir: Path) -> list[Section]:
    """Return a figure of each curve that `history.jsonl` has; none where there is no such file."""
    rows = read_history(run_dir / FILE)
    found = []
    for title, (names, unit) in _CURVES.items():
        present = {name: points for name in names if (points := curve(rows, name))[0]}
        if not present:
            continue
        chart, axes = make_chart(f"Training: {title.lower() if title == 'Loss' else unit}", "step", unit)
        for name, (x, y) in present.items():
            if name in _REFERENCES:
                add_reference(axes, x, y, name)
            else:
                axes.plot(x, y, linewidth=1.2, marker="." if len(x) < _FEW_POINTS else "", label=name)
        add_legend(axes)
        found.append(figure(title, chart))
    return found

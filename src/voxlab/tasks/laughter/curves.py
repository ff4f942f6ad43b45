"""The curves of a training run, for its page."""

from pathlib import Path

from voxlab.plots import plot_curves
from voxlab.report import Section, figure
from voxlab.tasks.history import FILE, curve, read_history

_CURVES = {  # title -> (names, unit)
    "Loss": (("train/loss", "val/loss"), "loss"),
    "Validation": (("val/ap", "val/prior"), "average precision"),
    "Validation AUROC": (("val/auroc",), "AUROC"),
    "Gradient norm": (("train/grad_norm",), "norm"),
    "Learning rate": (("train/lr",), "rate"),
    "Speed": (("train/frames_per_s",), "frames a second"),
}


def sections(run_dir: Path) -> list[Section]:
    """Return a figure of each curve that `history.jsonl` has; none where there is no such file."""
    rows = read_history(run_dir / FILE)
    found = []
    for title, (names, unit) in _CURVES.items():
        present = {name: points for name in names if (points := curve(rows, name))[0]}
        if present:
            found.append(figure(title, plot_curves(present, "step", unit)))
    return found

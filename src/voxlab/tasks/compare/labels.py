"""What figures are called on the page: the words of the tasks' own reports, above the names that `metrics=` takes."""

from voxlab.report import Cell
from voxlab.tasks.laughter import labels as laughter
from voxlab.tasks.train_tokenizer import measure as tokenizer


def label(task: str, name: str) -> str:
    """Return what a task calls a figure; "" where it has no words for it but the name."""
    if task == "laughter":
        return laughter.label(name)
    if task == "train_tokenizer" and name in tokenizer.LABELS:
        known = tokenizer.LABELS[name]
        return f"{known.label} ({known.unit})" if known.unit else known.label
    return ""


def titled(task: str, name: str, mark: str = "") -> Cell:
    """Return a heading: the label with a mark behind it, and small below it the name."""
    words = label(task, name)
    return Cell(f"{words or name}{mark}", name if words else "")

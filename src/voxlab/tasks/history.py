"""What a training run has logged: a line of JSON for each logged step, and the same to the loggers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.storage import atomic_write_bytes

FILE = "history.jsonl"


class History:
    """Rows {"step": n, name: value, ...}; those beyond the step of a resumed run are dropped.

    Args:
        folder: of the run; None keeps nothing (ranks other than the first).
        loggers: Lightning loggers.
        step: at which this process begins.
    """

    def __init__(self, folder: Path | None, loggers: Mapping[str, Any], step: int) -> None:
        self.path = None if folder is None else folder / FILE
        self.loggers = dict(loggers)
        if self.path is not None:
            kept = [json.dumps(row) for row in read_history(self.path) if row["step"] <= step]
            atomic_write_bytes(self.path, "".join(f"{line}\n" for line in kept).encode())

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; values that are not finite are kept out of the file's JSON as null."""
        if self.path is None:
            return
        plain = {name: value if abs(value) < float("inf") else None for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **plain}) + "\n")
        for logger in self.loggers.values():
            logger.log_metrics(dict(values), step=step)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a history, oldest first; a last line that was cut short is left out.

    Raises:
        UserError: the file can't be read, or another line is no row; the message begins with `path`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    rows = [_row(line) for line in lines]
    if rows and rows[-1] is None:
        rows.pop()
    if None in rows:
        raise UserError(f"{path}: line {rows.index(None) + 1} is no row of JSON with a step; mend or delete it.")
    return [row for row in rows if row is not None]


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


def curve(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Return steps and values of one name."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [point[0] for point in points], [point[1] for point in points]

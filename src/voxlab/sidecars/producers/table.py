"""Columns from tables: the corpus's own metadata, one CSV file for all recordings, or one beside each."""

import csv
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.errors import UserError
from voxlab.sidecars.item import Columns, SidecarItem, need_companion
from voxlab.storage import plain_name

MODES = ("hold", "linear")


@dataclass(frozen=True)
class Row:
    """A line of a table: its number in the file, from 1, and its cells."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV file.

    Attributes:
        rows: in order.
        numeric: columns with a number anywhere; a cell without one is an error there, not a column that one file lacks.
    """

    rows: tuple[Row, ...]
    numeric: tuple[str, ...]


def from_table(
    item: SidecarItem,
    times: np.ndarray,
    *,
    file: str | None = None,
    key: str = "file_name",
    suffix: str | None = None,
    folder: str | None = None,
    columns: Sequence[str] | None = None,
    time: str = "time",
    mode: str = "hold",
    units: Mapping[str, str] | None = None,
) -> Columns:
    """Take numbers from a table. One row for a recording holds for all frames; rows with a time follow it.

    The table is `file`, whose column `key` says which recording a row is for (relative path with or without suffix);
    or the file that lies beside the recording, `<recording without suffix><suffix>`; or, with neither given, what the
    corpus knows of the recording. CSV: UTF-8, a header, separated by commas, semicolons or tabs.

    Args:
        item: the recording.
        times: (T,) seconds.
        file: one table for all recordings.
        key: its column of paths.
        suffix: end of the name of a table for each recording (".csv").
        folder: where those lie, as `<folder>/<id><suffix>`; None: beside the recordings.
        columns: which to take; None: all that hold numbers.
        time: name of the column of times in seconds.
        mode: between rows with a time: "hold" the last value | "linear" interpolation. Before the first row and after
            the last the nearest value holds.
        units: name -> unit.

    Raises:
        UserError: settings that contradict each other, or no such table.
        ValueError: missing_row, missing_companion, bad_table, missing_column, or bad_value with the line.
    """
    check_table(file=file, suffix=suffix, mode=mode)
    item.units.update(units or {})
    if file is None and suffix is None:
        numbers = [name for name, value in item.metadata.items() if isinstance(value, int | float)]
        return _hold_one(item.metadata, numbers if columns is None else columns, "the corpus's metadata", len(times))
    path = Path(file) if file else need_companion(item, str(suffix), folder)
    table = _read_for_all(path) if file else _read(path, _stamp(path))
    rows = _rows_of(item, path, key) if file else list(table.rows)
    if not rows:
        raise ValueError(f"bad_table: {path.name} has no rows")
    chosen = [name for name in table.numeric if name not in (time, key)] if columns is None else columns
    if time in rows[0].cells:
        return _follow(rows, chosen, time, mode, path.name, times)
    if len(rows) > 1:
        lines = ", ".join(str(row.line) for row in rows[:3])
        raise ValueError(f"bad_table: {path.name} has {len(rows)} rows for {item.id} (lines {lines}) and no {time!r}")
    return _hold_one(rows[0].cells, chosen, f"{path.name}, line {rows[0].line}", len(times))


def check_table(*, file: str | None = None, suffix: str | None = None, mode: str = "hold", **_: Any) -> None:
    """Check the settings of `from_table`; raises UserError."""
    if mode not in MODES or (file and suffix):
        raise UserError(
            f"producers.from_table: mode={mode}, file={file}, suffix={suffix}: mode is one of {', '.join(MODES)}; "
            "give either file (one table for all) or suffix (one for each recording)."
        )


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _read(path: Path, stamp: tuple[int, int]) -> Table:
    """Read a table; `stamp` makes a changed file a different one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            names: Sequence[str] = reader.fieldnames or []
            rows = tuple(Row(reader.line_num, dict(cells)) for cells in reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"bad_table: {path.name} is not a CSV file in UTF-8 ({error})") from error
    if len(set(names)) != len(names) or "" in names:
        raise ValueError(f"bad_table: {path.name} needs a header of different names; it has {list(names)}")
    ragged = [row.line for row in rows if None in row.cells or None in row.cells.values()]
    if ragged:
        raise ValueError(f"bad_table: {path.name}, line {ragged[0]}: another number of cells than in the header")
    numeric = [name for name in names if any(_number(row.cells[name]) is not None for row in rows)]
    return Table(rows, tuple(numeric))


def _read_for_all(path: Path) -> Table:
    """Read the table for all recordings: what is wrong with it is wrong for each of them."""
    try:
        return _read(path, _stamp(path))
    except (OSError, ValueError) as error:
        raise UserError(f"producers.from_table.file={path}: {error}.") from None


def _rows_of(item: SidecarItem, path: Path, key: str) -> list[Row]:
    index = _index(path, _stamp(path), key)
    plain = unicodedata.normalize("NFC", item.id)
    names = dict.fromkeys((plain, plain + item.source.suffix))
    rows = sorted((row for name in names for row in index.get(name, [])), key=lambda row: row.line)
    if not rows:
        raise ValueError(f"missing_row: {path.name} has no row with {key} = {item.id}{item.source.suffix}")
    return rows


@lru_cache(maxsize=4)
def _index(path: Path, stamp: tuple[int, int], key: str) -> dict[str, list[Row]]:
    """Rows by the recording that they are for."""
    rows = _read(path, stamp).rows
    if rows and key not in rows[0].cells:
        raise UserError(
            f"producers.from_table.file={path} has no column {key!r} that says which recording a row is for; "
            f"it has {list(rows[0].cells)}. Set producers.from_table.key."
        )
    index: dict[str, list[Row]] = {}
    for row in rows:
        index.setdefault(plain_name(row.cells[key]), []).append(row)
    return index


def _hold_one(cells: Mapping[str, Any], columns: Sequence[str], where: str, frames: int) -> Columns:
    return {name: np.full(frames, _needed(cells, name, where)) for name in columns}


def _follow(
    rows: Sequence[Row], columns: Sequence[str], time: str, mode: str, where: str, times: np.ndarray
) -> Columns:
    """Values of rows with a time, at `times`."""
    read = {
        name: np.array([_needed(row.cells, name, f"{where}, line {row.line}") for row in rows])
        for name in (time, *columns)
    }
    order = np.argsort(read[time], kind="stable")
    marks = read[time][order]
    held = (np.searchsorted(marks, times, side="right") - 1).clip(0)
    sorted_columns = {name: read[name][order] for name in columns}
    if mode == "hold":
        return {name: values[held] for name, values in sorted_columns.items()}
    return {name: np.interp(times, marks, values) for name, values in sorted_columns.items()}


def _number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def _needed(cells: Mapping[str, Any], name: str, where: str) -> float:
    if name not in cells:
        raise ValueError(f"missing_column: {where} has no {name!r}; it has {list(cells)}")
    value = _number(cells[name])
    if value is None:
        raise ValueError(f"bad_value: {where}: {name} is {cells[name]!r}; needs a finite number")
    return value

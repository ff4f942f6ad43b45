"""Tables about recordings: a CSV or JSON-lines file with a row for each, typed by column, joined by file name."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from voxlab.data.names import finder, inflected, listed
from voxlab.errors import UserError

Value = str | int | float | bool | None

_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)")
_LONGEST_INTEGER = len(str(-(2**63)))
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Row:
    """A row of a table: the line it ends on, the file it names, and its other columns."""

    line: int
    name: str
    values: dict[str, Value]


def read_table(path: Path, key: str) -> list[Row]:
    """Read a table; every row has all columns.

    CSV (UTF-8, with or without byte order mark; the header decides between comma, semicolon and tab): a column of
    whole numbers is int, one of numbers float, any other str, spaces around a cell are dropped; numbers with leading
    zeros ("007") are names and stay text. JSON lines: one flat object a line. An empty cell is None.

    Args:
        path: `.csv`, `.tsv`, `.jsonl` or `.ndjson`.
        key: the column that names the file.

    Raises:
        UserError: it is absent or unreadable; names every faulty line, up to 20.
    """
    table = partial(_read_csv, key=key)
    readers = {".csv": table, ".tsv": table, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: a table must be {', '.join(readers)}.")
    columns, lines = reader(path, _read_text(path))
    if key not in columns:
        raise UserError(
            f"{path}: no column {key}; found {columns}. Name the column of the files: data.metadata_key=..., or read "
            "no table: data.metadata=null."
        )
    bad = [f"line {line}: no {key}" for line, cells in lines if not isinstance(cells[key], str) or not cells[key]]
    _refuse(path, bad)
    return [Row(line, str(cells.pop(key)), cells) for line, cells in lines]


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line} is not UTF-8 text. Save the table as UTF-8.") from error


def _refuse(path: Path, problems: Sequence[str]) -> None:
    if problems:
        raise UserError(f"{path} can't be used:\n  " + listed(problems, "\n  "))


Lines = list[tuple[int, dict[str, Value]]]


def _read_csv(path: Path, text: str, key: str) -> tuple[list[str], Lines]:
    header, rows = _parse_csv(path, text)
    names = [name.strip() for name in header]
    wrong = sorted({name or "(empty)" for name in names if not name or names.count(name) > 1})
    _refuse(path, [f"line 1: column {name} needs a name of its own" for name in wrong])
    cells = [[cell.strip() or None for cell in row] for _, row in rows]
    columns = dict(zip(names, zip(*cells, strict=True), strict=False))
    typed = [list(column) if name == key else _typed(list(column)) for name, column in columns.items()]
    return names, [
        (line, dict(zip(names, values, strict=True)))
        for (line, _), values in zip(rows, zip(*typed, strict=True), strict=True)
    ]


def _parse_csv(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Split a CSV file into its header and the rows with their line numbers; rows of empty cells are left out."""
    first = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    rows: list[tuple[int, list[str]]] = []
    problems: list[str] = []
    try:
        header = next(reader, [])
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, row))
                if len(row) != len(header):
                    cells = inflected("{} [cell|cells]", len(row))
                    problems.append(f"line {reader.line_num}: {cells}, the header has {len(header)}")
    except csv.Error as error:
        header = []
        problems.append(f"line {reader.line_num}: {error}")
    _refuse(path, problems)
    return header, rows


def _typed(cells: list[str | None]) -> Sequence[Value]:
    """Turn a column into numbers when all of its cells are."""
    filled = [cell for cell in cells if cell is not None]
    if all(_INTEGER.fullmatch(cell) and len(cell) <= _LONGEST_INTEGER and abs(int(cell)) < 2**63 for cell in filled):
        return [None if cell is None else int(cell) for cell in cells]
    if all(_NUMBER.fullmatch(cell) and math.isfinite(float(cell)) for cell in filled):
        return [None if cell is None else float(cell) for cell in cells]
    return cells


def _read_jsonl(path: Path, text: str) -> tuple[list[str], Lines]:
    lines: Lines = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                lines.append((number, _flat_object(line)))
            except ValueError as error:
                problems.append(f"line {number}: {error}")
    _refuse(path, problems)
    columns = list(dict.fromkeys(name for _, cells in lines for name in cells))
    for name in columns:
        _unify(path, name, lines)
    return columns, lines


def _flat_object(line: str) -> dict[str, Value]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON number")

    value: Any = json.loads(line, parse_constant=refuse)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    nested = [name for name, cell in value.items() if isinstance(cell, dict | list)]
    if nested:
        raise ValueError(
            f"{', '.join(nested)}: lists and objects can't be read, give text, numbers, true, false or null"
        )
    try:
        "".join([*value, *(cell for cell in value.values() if isinstance(cell, str))]).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object[error.start]!a} is half of a character") from None
    return {name: None if cell == "" else cell for name, cell in value.items()}


def _unify(path: Path, name: str, lines: Lines) -> None:
    """Give a column one type, and every row a value in it."""
    kinds = {type(cells[name]): line for line, cells in reversed(lines) if cells.get(name) is not None}
    if len(kinds) > 1 and set(kinds) != {int, float}:
        found = ", ".join(f"{kind.__name__} in line {line}" for kind, line in sorted(kinds.items(), key=lambda k: k[1]))
        raise UserError(f"{path}: column {name} holds several types: {found}. Give it one.")
    for _, cells in lines:
        cell = cells.get(name)
        cells[name] = float(cell) if isinstance(cell, int) and float in kinds else cell


def join(path: Path, rows: Iterable[Row], files: Mapping[str, str]) -> tuple[dict[str, Row], list[Row]]:
    """Find the recording of each row.

    Args:
        path: of the table, for messages.
        rows: of the table; a name is a relative path with or without suffix.
        files: relative path -> id of each recording.

    Returns:
        id -> row, and the rows that name no recording.

    Raises:
        UserError: several rows name one recording; lists them all.
    """
    find = finder(files)
    found: dict[str, list[Row]] = {}
    unmatched: list[Row] = []
    for row in rows:
        item_id = find(row.name)
        if item_id is None:
            unmatched.append(row)
        else:
            found.setdefault(item_id, []).append(row)
    double = [
        f"{item_id}: lines {', '.join(str(row.line) for row in same)}" for item_id, same in found.items() if same[1:]
    ]
    _refuse(path, double and ["several rows for one file:", *double])
    return {item_id: same[0] for item_id, same in found.items()}, unmatched

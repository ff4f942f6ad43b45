"""Columns that need no file: constants, ramps, and the numbers that stand in file names."""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from voxlab.errors import UserError
from voxlab.sidecars.item import Columns, SidecarItem

log = logging.getLogger(__name__)

_AT_START = re.compile(r"(?P<name>[A-Za-z][^\W_]*)_-?(?:\d+\.?\d*|\.\d+)(?=_|$)")
_told: set[str] = set()  # patterns of `from_filename` that have left out such a start


def const(
    item: SidecarItem,
    times: np.ndarray,
    *,
    columns: Mapping[str, float] | None,
    units: Mapping[str, str] | None = None,
) -> Columns:
    """Give every frame of every recording the same values.

    Args:
        item: the recording.
        times: (T,) seconds.
        columns: name -> value.
        units: name -> unit.

    Raises:
        UserError: no columns, or a value that is no number.
    """
    values = const_values(columns)
    item.units.update(units or {})
    return {name: np.full(len(times), value) for name, (value,) in values.items()}


def lin(
    item: SidecarItem,
    times: np.ndarray,
    *,
    columns: Mapping[str, Sequence[float]] | None = None,
    units: Mapping[str, str] | None = None,
) -> Columns:
    """Let values run evenly from the first frame to the last, both ends included.

    Args:
        item: the recording.
        times: (T,) seconds.
        columns: name -> [value of the first frame, value of the last]; None: {"position": [0, 1]}.
        units: name -> unit.

    Raises:
        UserError: something else than two numbers.
    """
    ends = lin_ends(columns)
    item.units.update(units or {})
    return {name: np.linspace(start, stop, len(times)) for name, (start, stop) in ends.items()}


def const_values(columns: Mapping[str, float] | None, **_: Any) -> dict[str, list[float]]:
    """Return the settings of `const` as name -> [value], or raise UserError."""
    return _numbers("const", columns, "{scene_id: 7}", length=1)


def lin_ends(columns: Mapping[str, Sequence[float]] | None = None, **_: Any) -> dict[str, list[float]]:
    """Return the settings of `lin` as name -> [first, last], or raise UserError."""
    return _numbers("lin", {"position": [0, 1]} if columns is None else columns, "{gain: [0, 1]}", length=2)


def _numbers(producer: str, columns: Mapping[str, Any] | None, example: str, length: int) -> dict[str, list[float]]:
    found = {name: value if isinstance(value, list | tuple) else [value] for name, value in (columns or {}).items()}
    wrong = {name: value for name, value in found.items() if len(value) != length or not all(map(_is_number, value))}
    if wrong or not found:
        what = "a number" if length == 1 else f"{length} numbers"
        raise UserError(
            f"producers.{producer}.columns={wrong or found}: give {what} for each column, for example "
            f"'producers.{producer}.columns={example}'."
        )
    return {name: [float(x) for x in value] for name, value in found.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def from_filename(
    item: SidecarItem, times: np.ndarray, *, pattern: str, units: Mapping[str, str] | None = None
) -> Columns:
    """Read all name-value pairs of a file name: "foo_pitch_64.00_amp_.75.wav" gives pitch 64 and amp 0.75.

    Args:
        item: the recording; its name without folders and suffix is searched.
        times: (T,) seconds.
        pattern: regular expression with the groups `name` and `value`; each match is a column.
        units: name -> unit.

    Raises:
        UserError: not a regular expression, or one without these groups.
        ValueError: a name twice, or a value that is no number.
    """
    item.units.update(units or {})
    columns: Columns = {}
    for match in compile_pattern(pattern).finditer(item.name):
        name, value = match["name"], match["value"]
        if name in columns:
            raise ValueError(f"duplicate_names: the file name {item.name} holds {name!r} twice")
        columns[name] = np.full(len(times), _parse(value, name, item.name))
    first = _AT_START.match(item.name)
    if first and first["name"] not in columns and pattern not in _told:
        _told.add(pattern)  # many names may begin so
        _tell_of_start(pattern, first[0], item.name)
    return columns


def _tell_of_start(pattern: str, start: str, name: str) -> None:
    log.warning(
        "%s at the start of the file name %s makes no column, and so for all names like it: a column's name stands "
        "behind a _, as in take_%s. If it is one, rename the files or set producers.from_filename.pattern (now %s).",
        *(start, name, name, pattern),
    )


@lru_cache(maxsize=8)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile the pattern of `from_filename`, or raise UserError."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"producers.from_filename.pattern={pattern!r} is not a regular expression: {error}.") from None
    if not {"name", "value"} <= compiled.groupindex.keys():
        raise UserError(
            f"producers.from_filename.pattern={pattern!r} needs the groups (?P<name>...) and (?P<value>...); "
            f"it has {sorted(compiled.groupindex)}."
        )
    return compiled


def _parse(value: str, name: str, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"bad_value: the file name {where} has {name} = {value!r}; needs a number") from None

"""Columns become a sidecar: each value is checked and rounded, and what exists already is merged with what is new."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from voxlab.sidecars.calls import Call
from voxlab.sidecars.item import Columns
from voxlab.sidecars.schema import Sidecar, skeleton

MODES = ("append", "overwrite")


@dataclass(frozen=True)
class Made:
    """The columns that one producer gave for one recording."""

    call: Call
    columns: Columns


@dataclass(frozen=True)
class Notes:
    """What a merge did to columns that existed: names of those it kept as they were, and of those it took away.

    Attributes:
        kept: columns that a producer made anew, but that stay as other settings had made them.
        dropped: columns for other token frames that no producer made anew, and those that their producer no longer
            makes.
        removed: columns taken away on demand.
    """

    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def as_record(self) -> dict[str, list[str]]:
        """Return what there is to tell, as plain values."""
        found = {"kept": self.kept, "dropped": self.dropped, "removed": self.removed}
        return {word: list(names) for word, names in found.items() if names}


def convert_column(name: str, column: Any, frames: int, dtype: str, file: str) -> np.ndarray:
    """Check a column and round it to the stored type.

    Args:
        name: of the column.
        column: (T,) numbers or bools.
        frames: T.
        dtype: "float16" or "float32".
        file: named in the messages.

    Raises:
        ValueError: bad_name, bad_column (shape or type), nonfinite, overflow, or rounded (whole numbers that the type
            can't hold), with column, file and value.
    """
    if not isinstance(name, str) or not name.strip() or name != name.strip() or not name.isprintable():
        raise ValueError(f"bad_name: {file}: {name!r} can't name a column; needs visible characters")
    array = np.asarray(column)
    if array.shape != (frames,):
        raise ValueError(f"bad_column: {file}: column {name!r} has shape {array.shape}; needs ({frames},)")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"bad_column: {file}: column {name!r} holds {array.dtype.name}; needs numbers")
    exact = array.astype(np.float64)
    _refuse_first(~np.isfinite(exact), exact, f"nonfinite: {file}: column {name!r}", "needs finite numbers")
    largest = float(np.finfo(dtype).max)
    advice = "set sidecars.dtype=float32 or scale the column" if dtype == "float16" else "scale the column"
    limit = f"{dtype} ends at {largest:g}; {advice}"
    _refuse_first(np.abs(exact) > largest, exact, f"overflow: {file}: column {name!r}", limit)
    stored = exact.astype(dtype)
    # Numbers of speakers or scenes, whose neighbour is another one; from 2**53 on every float is whole.
    if ((exact == np.trunc(exact)) & (np.abs(exact) <= 2**53)).all():
        whole = np.finfo(dtype).nmant + 1
        limit = f"{dtype} holds whole numbers up to {2**whole} exactly; {advice}"
        _refuse_first(stored != exact, exact, f"rounded: {file}: column {name!r}", limit)
    return stored


def _refuse_first(bad: np.ndarray, exact: np.ndarray, what: str, advice: str) -> None:
    if bad.any():
        frame = int(bad.argmax())
        raise ValueError(f"{what} is {exact[frame]} at frame {frame}; {advice}")


def assemble(empty: Sidecar, columns: Mapping[str, Any], units: Mapping[str, str], file: str) -> Sidecar:
    """Give a sidecar without columns these, in their order, in its type.

    Raises:
        ValueError: see `convert_column`.
    """
    rows = [convert_column(name, column, empty.frames, empty.dtype, file) for name, column in columns.items()]
    values = np.stack(rows, axis=1) if rows else empty.values
    return replace(empty, values=values, names=tuple(columns), units=tuple(units.get(name, "") for name in columns))


def merge(
    old: Sidecar | None,
    made: Sequence[Made],
    units: Mapping[str, str],
    empty: Sidecar,
    *,
    mode: str,
    remove: Collection[str],
    file: str,
) -> tuple[Sidecar, Notes]:
    """Join the columns of a sidecar with new ones: those that producers make in their order, then those only kept.

    Args:
        old: what there is, or None. Where it was made for other tokens (or has another number of frames), its columns
            count only as far as producers made them anew.
        made: results of the producers, in order.
        units: units of their columns.
        empty: a sidecar without columns of the type and for the tokens that are wanted.
        mode: "append" keeps a column that exists, unless the same producer made it with the same settings, and refuses
            columns for other tokens; "overwrite" replaces the one and drops the others. Either drops a column that its
            producer (in "append": with the same settings) no longer makes.
        remove: names of columns to take away.
        file: named in the messages.

    Raises:
        ValueError: name_collision, stale_sidecar, or one of `convert_column`.
    """
    old = skeleton(empty.frames, empty.frame_rate or 0.0, empty.dtype) if old is None else old
    new = _without_collisions(made, file)
    stale = is_stale(old, empty)
    gone = _no_longer_made(old, made, new, mode)
    foreign = [name for name in old.names if stale and name not in (*new, *gone, *remove)]
    if foreign and mode == "append":
        raise ValueError(
            f"stale_sidecar: {file}: columns {', '.join(foreign)} belong to other tokens; name their producers again"
            f"{_makers(old, foreign)}, or drop them with sidecars.mode=overwrite"
        )
    kept = [] if stale or mode == "overwrite" else [n for n in new if n in old.names and not _is_same(old, n, new[n])]
    dropped = [name for name in old.names if name in (*foreign, *gone) and name not in remove]
    table = {name: old.column(name) if name in kept else one.columns[name] for name, one in new.items()}
    table |= {name: old.column(name) for name in old.names if name not in new and name not in dropped}
    known = dict(zip(old.names, old.units, strict=True))
    units = known | {name: units.get(name, "") for name in new if name not in kept}
    columns = {name: column for name, column in table.items() if name not in remove}
    merged = assemble(empty, columns, units, file)
    from_new = [name for name in columns if name in new and name not in kept]
    entries = _entries(old, made, from_new, [name for name in columns if name not in from_new])
    removed = [name for name in (*old.names, *new) if name in remove]
    notes = Notes(tuple(kept), tuple(dropped), tuple(dict.fromkeys(removed)))
    return replace(merged, producers=entries), notes


def is_stale(old: Sidecar, empty: Sidecar) -> bool:
    """Tell whether a sidecar is for other tokens than wanted; one that doesn't say goes by the number of frames."""
    return old.frames != empty.frames or old.tokens_sha256 not in (None, empty.tokens_sha256)


def _makers(old: Sidecar, columns: Collection[str]) -> str:
    """Name the producers of columns, where the sidecar says who they are."""
    names = [str(entry.get("name")) for entry in old.producers if not set(columns).isdisjoint(entry["columns"])]
    return f" ({', '.join(dict.fromkeys(names))})" if names else ""


def _without_collisions(made: Sequence[Made], file: str) -> dict[str, Made]:
    new: dict[str, Made] = {}
    for one in made:
        for name in one.columns:
            if name in new:
                raise ValueError(
                    f"name_collision: {file}: column {name!r} comes from {new[name].call.name} and {one.call.name}"
                )
            new[name] = one
    return new


def _no_longer_made(old: Sidecar, made: Sequence[Made], new: Collection[str], mode: str) -> set[str]:
    """Return the columns of the present producers that none of them makes now."""
    now = [(one.call.name, one.call.args) for one in made]
    names = [one.call.name for one in made]
    again = [
        entry
        for entry in old.producers
        if (entry.get("name") in names if mode == "overwrite" else (entry.get("name"), entry.get("args")) in now)
    ]
    return {name for entry in again for name in entry["columns"] if name not in new}


def _is_same(old: Sidecar, name: str, one: Made) -> bool:
    """Tell whether the producer that now makes a column made it before, with the same settings."""
    entry = next((entry for entry in old.producers if name in entry["columns"]), {})
    return (entry.get("name"), entry.get("args")) == (one.call.name, one.call.args)


def _entries(
    old: Sidecar, made: Sequence[Made], from_new: Collection[str], from_old: Collection[str]
) -> tuple[dict[str, Any], ...]:
    """Who made which columns: the old entries as far as their columns stay, then the new ones."""
    entries = [dict(entry, columns=[c for c in entry["columns"] if c in from_old]) for entry in old.producers]
    entries += [{**one.call.describe(), "columns": [c for c in one.columns if c in from_new]} for one in made]
    return tuple(entry for entry in entries if entry["columns"])

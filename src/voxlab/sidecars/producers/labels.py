"""Columns from label files beside the recordings: Audacity label tracks, Praat TextGrids, RTTM (speakers)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from voxlab.errors import UserError
from voxlab.sidecars.item import Columns, SidecarItem, companion, need_companion

OUTPUTS = ("membership", "index")


class Interval(NamedTuple):
    """A labelled stretch of time, start <= t < end in seconds; a point where both are equal."""

    start: float
    end: float
    label: str


def from_labels(
    item: SidecarItem,
    times: np.ndarray,
    *,
    suffix: str,
    folder: str | None = None,
    format: str = "auto",
    tier: str | None = None,
    labels: Sequence[str] | None = None,
    output: str = "membership",
    prefix: str = "",
    overlap: str | None = None,
    missing: str = "error",
) -> Columns:
    """Mark the frames that lie in labelled intervals; a point of the recording marks the frame nearest to it.

    Labels without text mark silence in these formats: they are skipped.

    Args:
        item: the recording.
        times: (T,) seconds.
        suffix: end of the label file's name, after the recording's without suffix (".txt", ".TextGrid", ".rttm").
        folder: where the label files lie, as `<folder>/<id><suffix>`; None: beside the recordings.
        format: "audacity" | "textgrid" | "rttm"; "auto": by the suffix (.txt, .TextGrid, .rttm).
        tier: of a TextGrid; None: the only one it has.
        labels: which to take, in this order; None: those that the file holds, sorted. Name them where the recordings
            don't all have the same, for all sidecars to have the same columns.
        output: "membership": a column of 0 and 1 for each label | "index": one column `label`, 0 outside and n in the
            n-th of `labels` (the later one where they overlap).
        prefix: put before the names of the columns.
        overlap: name of a further column, 1 where intervals (of all labels) overlap; None: no such column.
        missing: what a recording without label file gets: "error" | "zeros" (as if the file were empty).

    Raises:
        UserError: unknown settings.
        ValueError: missing_companion or bad_labels, with file and line where there is one.
    """
    kind = check_labels(suffix=suffix, format=format, labels=labels, output=output, missing=missing)
    find = need_companion if missing == "error" else companion
    path = find(item, suffix, folder)
    intervals = READERS[kind](path, item, tier) if path else []
    inside = {entry: _members(entry, times, item.duration) for entry in intervals}
    chosen = sorted({entry.label for entry in intervals}) if labels is None else list(labels)
    if output == "index":
        column = np.zeros(len(times))
        for entry in (entry for entry in intervals if entry.label in chosen):
            column[inside[entry]] = chosen.index(entry.label) + 1
        columns = {f"{prefix}label": column}
    else:
        columns = {f"{prefix}{name}": _union(inside, name, len(times)) for name in chosen}
    if overlap is not None:
        columns[f"{prefix}{overlap}"] = np.sum([inside[entry] for entry in intervals] or [0 * times], axis=0) > 1
    return columns


def check_labels(
    *,
    suffix: str,
    format: str = "auto",
    labels: Sequence[str] | None = None,
    output: str = "membership",
    missing: str = "error",
    **_: Any,
) -> str:
    """Check the settings of `from_labels`; return the format of the label files, or raise UserError."""
    kind = _KINDS.get(Path("x" + suffix).suffix.lower(), "unknown") if format == "auto" else format
    if kind not in READERS:
        raise UserError(
            f"producers.from_labels: suffix={suffix}, format={format}: {', '.join(_KINDS)} say the format; "
            f"for others choose one of {', '.join(READERS)}."
        )
    if output not in OUTPUTS or missing not in ("error", "zeros"):
        raise UserError(
            f"producers.from_labels: output={output}, missing={missing}: output is one of {', '.join(OUTPUTS)}, "
            "missing is error or zeros."
        )
    if output == "index" and not labels:
        raise UserError(
            "producers.from_labels.output=index needs producers.from_labels.labels=[...]: numbers must mean the same "
            "in all recordings."
        )
    return kind


def _members(entry: Interval, times: np.ndarray, duration: float) -> np.ndarray:
    """Which frames an interval holds, (T,) bool."""
    if entry.end > entry.start:
        return (times >= entry.start) & (times < entry.end)
    inside = np.zeros(len(times), bool)
    if 0 <= entry.start <= duration:
        inside[np.abs(times - entry.start).argmin()] = True
    return inside


def _union(inside: Mapping[Interval, np.ndarray], label: str, frames: int) -> np.ndarray:
    found = [members for entry, members in inside.items() if entry.label == label]
    return np.any(found, axis=0) if found else np.zeros(frames, bool)


def _interval(start: str | float, end: str | float, label: str, where: str) -> Interval:
    try:
        entry = Interval(float(start), float(end), label.strip())
    except ValueError:
        raise ValueError(f"bad_labels: {where}: {start!r} to {end!r} is no stretch of time in seconds") from None
    if not (np.isfinite(entry.start) and np.isfinite(entry.end) and entry.end >= entry.start):
        raise ValueError(f"bad_labels: {where}: the interval from {start} to {end} s ends before it starts")
    return entry


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"bad_labels: {path.name} is not UTF-8 text ({error})") from error


def _read_audacity(path: Path, item: SidecarItem, tier: str | None) -> list[Interval]:
    """Lines "start<TAB>end<TAB>label"; lines that start with a backslash give frequency ranges and are skipped."""
    entries = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        cells = line.split("\t")
        if not line.strip() or line.startswith("\\"):
            continue
        if len(cells) < 2:
            raise ValueError(f"bad_labels: {path.name}, line {number}: {line!r}; needs start<TAB>end<TAB>label")
        entries.append(_interval(cells[0], cells[1], "\t".join(cells[2:]), f"{path.name}, line {number}"))
    return [entry for entry in entries if entry.label]


def _read_textgrid(path: Path, item: SidecarItem, tier: str | None) -> list[Interval]:
    from praatio import textgrid
    from praatio.data_classes.point_tier import PointTier

    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False, reportingMode="silence")
    except Exception as error:  # praatio raises whatever its parser stumbles over
        raise ValueError(f"bad_labels: {path.name} is not a TextGrid ({type(error).__name__}: {error})") from error
    names = list(grid.tierNames)
    if tier is None and len(names) != 1:
        raise ValueError(f"bad_labels: {path.name} has the tiers {names}; choose one with producers.from_labels.tier")
    if tier is not None and tier not in names:
        raise ValueError(f"bad_labels: {path.name} has no tier {tier!r}; it has {names}")
    chosen = grid.getTier(tier or names[0])
    rows = [(e[0], e[0], e[1]) for e in chosen] if isinstance(chosen, PointTier) else [tuple(e) for e in chosen]
    return [_interval(start, end, label, path.name) for start, end, label in rows if label.strip()]


def _read_rttm(path: Path, item: SidecarItem, tier: str | None) -> list[Interval]:
    """Lines "SPEAKER file channel start duration <NA> <NA> name ..." of this recording."""
    entries, others = [], set()
    for number, line in enumerate(_text(path).splitlines(), 1):
        cells = line.split()
        if not cells or cells[0] != "SPEAKER":
            continue
        where = f"{path.name}, line {number}"
        if len(cells) < 8:
            raise ValueError(f"bad_labels: {where}: {len(cells)} fields; a SPEAKER line needs 8 or more")
        if cells[1] not in (item.id, item.name):
            others.add(cells[1])
            continue
        length = _interval(0.0, cells[4], "length", where).end
        start = _interval(cells[3], cells[3], "start", where).start
        entries.append(_interval(start, start + length, cells[7], where))
    if others and not entries:
        raise ValueError(f"bad_labels: {path.name} is about {sorted(others)[:3]}, not about {item.name}")
    return entries


READERS: dict[str, Callable[[Path, SidecarItem, str | None], list[Interval]]] = {
    "audacity": _read_audacity,
    "textgrid": _read_textgrid,
    "rttm": _read_rttm,
}
_KINDS = {".txt": "audacity", ".textgrid": "textgrid", ".rttm": "rttm"}

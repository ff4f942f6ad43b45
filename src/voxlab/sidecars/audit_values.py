"""What can be wrong with the values of a sidecar: NaN, values outside their range, statistics that are not theirs."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from voxlab.sidecars.audit_types import Expectation, Issue
from voxlab.sidecars.schema import STATISTICS, compute_stats

# Relative to the largest value of a column. Files that say `dtype` have statistics of the stored values; EncHF_Dataset
# took them in float32, before it rounded to the stored type.
_OWN_TOLERANCE, _OTHER_TOLERANCES = 1e-6, {"float16": 2e-3, "float32": 1e-5}


def as_number(value: Any) -> float:
    """Return a value from a JSON as a number, NaN where it is none that is finite."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else math.nan


def measure(values: np.ndarray) -> np.ndarray:
    """Return least, greatest, mean and standard deviation of (T, D) values, as (4, D) float64.

    NaN for columns with values that are not finite, and where there are no frames.
    """
    if not values.size:
        return np.full((len(STATISTICS), values.shape[1]), np.nan)
    sound = np.isfinite(values).all(axis=0)
    found = compute_stats(np.where(sound, values, 0))
    return np.where(sound, np.array([found[key] for key in STATISTICS]), np.nan)


def check_finite(values: np.ndarray, labels: tuple[str, ...]) -> Iterator[Issue]:
    """Report NaN and infinity, once a file."""
    bad = ~np.isfinite(values)
    if bad.any():
        counts = [(labels[index], int(bad[:, index].sum())) for index in np.flatnonzero(bad.any(axis=0))]
        first = int(np.flatnonzero(bad.any(axis=1))[0])
        listed = ", ".join(f"{name} {count}" for name, count in counts)
        yield "nonfinite", f"NaN or infinite in {len(values)} frames: {listed}; the first in frame {first}"


def check_ranges(names: tuple[str, ...], statistics: np.ndarray, expect: Expectation) -> Iterator[tuple[str, str, str]]:
    """Compare the columns with the ranges that are expected; a required column that is missing is told elsewhere.

    Yields:
        type of finding, detail, column.
    """
    for name, (low, high) in expect.ranges.items():
        if name in names:
            least, greatest = statistics[:2, names.index(name)]
            if low is not None and least < low:
                yield "range_below_min", f"{name}: least value {least:.6g}, allowed from {low:g}", name
            if high is not None and greatest > high:
                yield "range_above_max", f"{name}: greatest value {greatest:.6g}, allowed up to {high:g}", name
        elif name not in expect.required:
            yield "range_unverifiable", f"{name}: there is no such column, so its range can't be checked", name


def check_statistics(
    meta: Mapping[str, Any], dtype: str, labels: tuple[str, ...], statistics: np.ndarray, told: set[str]
) -> Iterator[Issue]:
    """Compare the statistics in the JSON with those of the values.

    Args:
        meta: the JSON.
        dtype: of the values.
        labels: D names of columns.
        statistics: (4, D), see `measure`; columns that are not finite are let pass.
        told: columns whose values are reported already.
    """
    stored, issues = _stored_statistics(meta, len(labels))
    yield from issues
    if stored is None:
        return
    known = ~np.isnan(statistics[0])
    sound = np.isfinite(stored).all(axis=0) & ~(stored[3] < 0)
    if (known & ~sound).any():
        yield "norm_invalid", f"min, max, mean and std are not all usable numbers: {_list(labels, known & ~sound)}"
    inverted = known & sound & (stored[0] > stored[1])
    if inverted.any():
        yield "norm_inverted", f"min above max: {_list(labels, inverted)}"
    untold = np.array([label not in told for label in labels], bool)
    yield from _compare(meta, dtype, labels, statistics, stored, known & sound & ~inverted & untold)


def _stored_statistics(meta: Mapping[str, Any], width: int) -> tuple[np.ndarray | None, list[Issue]]:
    """Return the statistics in the JSON as (4, D), NaN for what is no number; or None, and what is wrong with them."""
    lists: Any
    if meta["schema_version"] == 2:
        features = meta.get("features")
        entries = list(features.values()) if isinstance(features, dict) else []
        named = len(entries)
        lists = [[entry.get(key) if isinstance(entry, dict) else None for entry in entries] for key in STATISTICS]
    else:
        norm, names = meta.get("norm"), meta.get("names")
        found = {key: norm.get(key) if isinstance(norm, dict) else None for key in STATISTICS}
        missing = [f"norm.{key}" for key, values in found.items() if not isinstance(values, list)]
        if missing:
            return None, [("norm_invalid", f"the JSON has no list {', '.join(missing)}")]
        lists, named = list(found.values()), len(names) if isinstance(names, list) else 0
    lengths = [len(values) for values in lists]
    if lengths == [width] * len(STATISTICS):
        numbers = [[as_number(value) for value in values] for values in lists]
        return np.array(numbers, np.float64).reshape(len(STATISTICS), width), []
    if lengths == [named] * len(STATISTICS):
        return None, []  # they fit the names, whose number is wrong: told there
    if not any(lengths):
        return None, [("range_unverifiable", f"the JSON has no statistics of its {width} columns")]
    counts = ", ".join(f"{length} {key}" for key, length in zip(STATISTICS, lengths, strict=True))
    return None, [("norm_length_mismatch", f"{width} columns, statistics: {counts}")]


def _compare(
    meta: Mapping[str, Any],
    dtype: str,
    labels: tuple[str, ...],
    statistics: np.ndarray,
    stored: np.ndarray,
    usable: np.ndarray,
) -> Iterator[Issue]:
    """Report columns that leave the range in the JSON, and those inside it that have other statistics."""
    relative = _OWN_TOLERANCE if "dtype" in meta else _OTHER_TOLERANCES.get(dtype, 1e-5)
    tolerance = relative * np.abs(statistics[:2]).max(axis=0) + 1e-12
    with np.errstate(invalid="ignore"):
        below = usable & (statistics[0] < stored[0] - tolerance)
        above = usable & (statistics[1] > stored[1] + tolerance)
        other = usable & ~below & ~above & (np.abs(stored - statistics) > tolerance).any(axis=0)
    if below.any():
        yield "range_below_min", f"values below the min in the JSON: {_list(labels, below)}"
    if above.any():
        yield "range_above_max", f"values above the max in the JSON: {_list(labels, above)}"
    # Schema 2 lets a writer declare them, e.g. the range of a knob that this file uses in part.
    if meta["schema_version"] == 1 and other.any():
        column = int(np.flatnonzero(other)[0])
        said, found = (", ".join(f"{value:.6g}" for value in rows[:, column]) for rows in (stored, statistics))
        more = f" (and {int(other.sum()) - 1} more columns)" if other.sum() > 1 else ""
        yield "stats_mismatch", f"{labels[column]}: min, max, mean, std are {found}; the JSON says {said}{more}"


def _list(labels: tuple[str, ...], chosen: np.ndarray) -> str:
    return ", ".join(labels[index] for index in np.flatnonzero(chosen))

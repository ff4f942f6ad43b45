"""What can be wrong with one sidecar beside its token file: each fault is one issue, and brings no others with it.

Issues that only exist because the user asked for more than agreement are kept apart: see `check_sidecar`.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.sidecars.audit_files import Broken, read_meta, read_values
from voxlab.sidecars.audit_types import Expectation, Issue, SidecarFacts, TokenFacts
from voxlab.sidecars.audit_values import as_number, check_finite, check_ranges, check_statistics, measure
from voxlab.sidecars.schema import DTYPES, META_SUFFIX, VALUES_SUFFIX

_SAMPLE = 32  # frames of each file that the plots of the report show


def check_sidecar(
    npy: Path, json_path: Path | None, codes: TokenFacts | None, expect: Expectation
) -> tuple[SidecarFacts | None, list[Issue], list[Issue]]:
    """Read a sidecar and compare it with itself, with its token file and with what is expected.

    Args:
        npy: the values.
        json_path: what describes them; None where there is no such file.
        codes: the token file; None where it can't be read.
        expect: what is required.

    Returns:
        What it holds, what is wrong with it, and where it is not as `expect` asks.
    """
    try:
        values, values_sha256 = read_values(npy)
        meta, meta_sha256 = (None, "") if json_path is None else read_meta(json_path)
    except Broken as error:
        return None, [("bad_sidecar", str(error))], []
    if values.ndim != 2:
        return None, [("bad_shape", f"values of shape {values.shape}, not (frames, columns)")], []
    names, issues = _check_names(npy, meta, values.shape[1])
    labels = names or tuple(f"column {index}" for index in range(values.shape[1]))
    asked = list(_ask_dtype(values, expect))
    issues += [*_check_frames(values, meta, codes), *([] if asked else _check_dtype(values, meta))]
    asked += [*_ask_names(names, expect), *_ask_frame_rate(meta, expect)]
    statistics = measure(values)
    issues += check_finite(values, labels)
    ranged = list(check_ranges(names, statistics, expect)) if names is not None else []
    asked += [(kind, detail) for kind, detail, _ in ranged]
    if meta is not None:
        issues += [] if expect.frame_rate else _check_frame_rate(meta, codes)
        issues += check_statistics(meta, values.dtype.name, labels, statistics, {column for _, _, column in ranged})
        issues += _check_pair(meta, values_sha256, [*issues, *asked])
    step = max(1, len(values) // _SAMPLE)
    sample = values[::step].astype(np.float32)
    return SidecarFacts(len(values), names, statistics, sample, (values_sha256, meta_sha256)), issues, asked


def _check_names(npy: Path, meta: Mapping[str, Any] | None, columns: int) -> tuple[tuple[str, ...] | None, list[Issue]]:
    """Return the names of the columns, None where they don't name each column once, and what is wrong with them."""
    if meta is None:
        return None, [("missing_json", _explain_missing(npy))]
    features: Any = meta.get("features") if meta["schema_version"] == 2 else None
    names = list(features) if isinstance(features, dict) else meta.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None, [("missing_names", f"the JSON has no list of names for the {columns} columns")]
    if columns and not names:
        return None, [("missing_names", f"the JSON names none of the {columns} columns")]
    if len(names) != columns:
        return None, [("names_length_mismatch", f"{len(names)} names for {columns} columns: {', '.join(names)}")]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        return None, [("duplicate_names", f"more than one column {', '.join(twice)}")]
    return tuple(names), []


def _ask_names(names: tuple[str, ...] | None, expect: Expectation) -> Iterator[Issue]:
    missing = [name for name in expect.required if names is not None and name not in names]
    if missing:
        yield "missing_features", f"no column {', '.join(missing)}; there are: {', '.join(names or ()) or 'none'}"


def _explain_missing(npy: Path) -> str:
    json_path = npy.with_name(npy.name.removesuffix(VALUES_SUFFIX) + META_SUFFIX)
    misnamed = npy.with_name(npy.name.removesuffix(".npy") + META_SUFFIX)  # as EncHF_Dataset would name it
    hint = f"; rename {misnamed.name}" if misnamed.is_file() else ""
    return f"there is no {json_path.name}{hint}"


def _check_frames(values: np.ndarray, meta: Mapping[str, Any] | None, codes: TokenFacts | None) -> Iterator[Issue]:
    """Compare lengths; values made from other codes of the same length show by the hash of their token file."""
    stored, said = len(values), None if meta is None else meta.get("frames")
    if codes is not None and stored != codes.frames:
        yield "frame_mismatch", f"{stored} frames of values, {codes.frames} of codes"
    elif said not in (None, stored):
        yield "frame_mismatch", f"{stored} frames of values, {said} in the JSON"
    elif codes is not None and meta is not None and meta.get("codes_sha256") not in (None, codes.sha256):
        yield (
            "stale_sidecar",
            "made from other tokens; type stages='[sidecars]' with its producers, or sidecars.mode=overwrite",
        )


def _ask_dtype(values: np.ndarray, expect: Expectation) -> Iterator[Issue]:
    if expect.dtype not in (None, values.dtype.name):
        yield "dtype_mismatch", f"values are {values.dtype.name}, expected {expect.dtype}"


def _check_dtype(values: np.ndarray, meta: Mapping[str, Any] | None) -> Iterator[Issue]:
    stored, said = values.dtype.name, None if meta is None else meta.get("dtype")
    if stored not in DTYPES:
        yield "dtype_mismatch", f"values are {stored}, allowed: {', '.join(DTYPES)}"
    elif said not in (None, stored):
        yield "dtype_mismatch", f"values are {stored}, the JSON says {said}"


def _ask_frame_rate(meta: Mapping[str, Any] | None, expect: Expectation) -> list[Issue]:
    return [] if meta is None or not expect.frame_rate else _compare_frame_rate(meta, expect.frame_rate)


def _check_frame_rate(meta: Mapping[str, Any], codes: TokenFacts | None) -> list[Issue]:
    return _compare_frame_rate(meta, None if codes is None else codes.frame_rate)


def _compare_frame_rate(meta: Mapping[str, Any], expected: float | None) -> list[Issue]:
    said = as_number(meta.get("fps"))
    if not math.isnan(said) and (expected is None or math.isclose(said, expected, rel_tol=1e-6)):
        return []
    suffix = "" if expected is None else f", expected {expected:g}"
    return [("fps_mismatch", f"fps in the JSON: {meta.get('fps')}{suffix}")]


def _check_pair(meta: Mapping[str, Any], values_sha256: str, issues: list[Issue]) -> Iterator[Issue]:
    """Report values that were changed behind the JSON, where nothing else shows it."""
    if not issues and meta.get("values_sha256") not in (None, values_sha256):
        yield "stats_mismatch", "the values have changed since the JSON was written: run the stage sidecars again"

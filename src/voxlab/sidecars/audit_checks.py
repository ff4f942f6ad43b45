"""What can be wrong with one sidecar beside its token file: each fault is one issue, and brings no others with it."""

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
) -> tuple[SidecarFacts | None, list[Issue]]:
    """Read a sidecar and compare it with itself, with its token file and with what is expected.

    Args:
        npy: the values.
        json_path: what describes them; None where there is no such file.
        codes: the token file; None where it can't be read.
        expect: what is required.
    """
    try:
        values, values_sha256 = read_values(npy)
        meta, meta_sha256 = (None, "") if json_path is None else read_meta(json_path)
    except Broken as error:
        return None, [("bad_sidecar", str(error))]
    if values.ndim != 2:
        return None, [("bad_shape", f"values of shape {values.shape}, not (frames, columns)")]
    names, issues = _check_names(npy, meta, values.shape[1], expect)
    labels = names or tuple(f"column {index}" for index in range(values.shape[1]))
    issues += [*_check_frames(values, meta, codes), *_check_dtype(values, meta, expect)]
    statistics = measure(values)
    issues += check_finite(values, labels)
    ranged = list(check_ranges(names, statistics, expect)) if names is not None else []
    issues += [(kind, detail) for kind, detail, _ in ranged]
    if meta is not None:
        issues += _check_frame_rate(meta, codes, expect)
        issues += check_statistics(meta, values.dtype.name, labels, statistics, {column for _, _, column in ranged})
        issues += _check_pair(meta, values_sha256, issues)
    step = max(1, len(values) // _SAMPLE)
    sample = values[::step].astype(np.float32)
    return SidecarFacts(len(values), names, statistics, sample, (values_sha256, meta_sha256)), issues


def _check_names(
    npy: Path, meta: Mapping[str, Any] | None, columns: int, expect: Expectation
) -> tuple[tuple[str, ...] | None, list[Issue]]:
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
    missing = [name for name in expect.required if name not in names]
    issue = ("missing_features", f"no column {', '.join(missing)}; there are: {', '.join(names) or 'none'}")
    return tuple(names), [issue] if missing else []


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
        yield "stale_sidecar", "the token file has changed since: run the stage sidecars again"


def _check_dtype(values: np.ndarray, meta: Mapping[str, Any] | None, expect: Expectation) -> Iterator[Issue]:
    stored, said = values.dtype.name, None if meta is None else meta.get("dtype")
    if stored not in DTYPES:
        yield "dtype_mismatch", f"values are {stored}, allowed: {', '.join(DTYPES)}"
    elif expect.dtype not in (None, stored):
        yield "dtype_mismatch", f"values are {stored}, expected {expect.dtype}"
    elif said not in (None, stored):
        yield "dtype_mismatch", f"values are {stored}, the JSON says {said}"


def _check_frame_rate(meta: Mapping[str, Any], codes: TokenFacts | None, expect: Expectation) -> Iterator[Issue]:
    said, expected = as_number(meta.get("fps")), expect.frame_rate or (None if codes is None else codes.frame_rate)
    if math.isnan(said) or (expected is not None and not math.isclose(said, expected, rel_tol=1e-6)):
        suffix = "" if expected is None else f", expected {expected:g}"
        yield "fps_mismatch", f"fps in the JSON: {meta.get('fps')}{suffix}"


def _check_pair(meta: Mapping[str, Any], values_sha256: str, issues: list[Issue]) -> Iterator[Issue]:
    """Report values that were changed behind the JSON, where nothing else shows it."""
    if not issues and meta.get("values_sha256") not in (None, values_sha256):
        yield "stats_mismatch", "the values have changed since the JSON was written: run the stage sidecars again"

"""Agreement of the listings with the files: `manifest.csv`, and the rows and statistics of a built data set."""

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from voxlab.sidecars.audit_files import digest_codes, digest_values
from voxlab.sidecars.audit_types import FAIL_ON, AuditedFile, Row
from voxlab.sidecars.schema import META_SUFFIX, STATISTICS, VALUES_SUFFIX

MANIFEST_COLUMNS = ("rel_ecdc", "rel_cond", "frames", "D", "fps", "codebooks")
# After these the facts of a file are in doubt, and a listing that differs from them is no second fault.
_IN_DOUBT = {*FAIL_ON, "bad_shape", "missing_names", "names_length_mismatch", "duplicate_names"} - {"mixed_columns"}
_COLUMNS = ("audio", "frames", "num_codebooks", "num_samples", "sample_rate", "cond", "cond_names")
_INLINE = {"codes": "<i2", "cond_values": "<f4"}
_TOLERANCE = 1e-6  # of pooled statistics, relative to the largest value

Lines = dict[str, dict[str, Any]]  # path of the token file in its tree -> its row, with `split` and `times`


class _Unreadable(ValueError):
    """The listing can't be read; the text says why."""


@dataclass(frozen=True)
class _Listing:
    kind: str
    lines: Lines
    compare: Callable[[Mapping[str, Any], AuditedFile], Iterator[str]]


def check_listings(
    files: Sequence[AuditedFile],
    issues: Sequence[Row],
    tokens: Path,
    manifest: Path | None,
    dataset: Path | None,
    *,
    unlisted: str,
) -> Iterator[Row]:
    """Compare the listings that exist with the files; a file that both miss or name in vain is told once.

    Args:
        files: all token files.
        issues: what is wrong with them; those whose facts are in doubt are compared no further.
        tokens: the folder that they are in.
        manifest: a manifest.csv.
        dataset: a folder that `datasets.load_from_disk` reads.
        unlisted: what to say of a file that a listing lacks.
    """
    listings, failures = _open_listings(tokens, manifest, dataset)
    yield from failures
    doubtful = {path for path, _, kind, _ in issues if kind in _IN_DOUBT}
    present, told = {file.tokens: file for file in files}, set[str]()
    for listing in listings:
        missing = listing.lines.keys() - present.keys() - told
        told |= missing
        yield from ((path, "", listing.kind, "listed, but there is no such token file") for path in missing)
    for listing in reversed(listings):  # the manifest first: a file that nothing uses does no harm
        more = present.keys() - listing.lines.keys() - told - doubtful
        told |= more
        yield from ((path, present[path].sidecar, listing.kind, unlisted) for path in more)
    for listing in listings:
        for path in listing.lines.keys() & present.keys() - doubtful:
            differences = "; ".join(listing.compare(listing.lines[path], present[path]))
            if differences:
                told.add(path)
                yield path, present[path].sidecar, listing.kind, differences
        if listing.kind == "dataset_mismatch" and dataset is not None and not doubtful | told:
            yield from (("", "", listing.kind, text) for text in _compare_pooled(dataset, listing.lines, present))


def _open_listings(tokens: Path, manifest: Path | None, dataset: Path | None) -> tuple[list[_Listing], list[Row]]:
    listings, failures = [], list[Row]()
    if dataset is not None and dataset.is_dir():
        try:
            lines = _read_dataset(dataset)
            compare = _DatasetFiles(dataset, tokens).compare
            listings.append(_Listing("dataset_mismatch", lines, compare))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
            text = str(error).replace(f"{dataset.parent}{os.sep}", "")
            failures.append(("", "", "dataset_mismatch", f"{dataset.name} can't be read: {text}"))
    if manifest is not None and manifest.is_file():
        try:
            listings.append(_Listing("manifest_mismatch", _read_manifest(manifest, tokens), _compare_manifest))
        except (_Unreadable, OSError) as error:
            failures.append(("", "", "manifest_mismatch", f"{manifest.name} can't be read: {error}"))
    return listings, failures


def _add(lines: Lines, path: str, line: Mapping[str, Any]) -> None:
    times = lines[path]["times"] if path in lines else 0
    lines[path] = {**line, "times": times + 1}


def _differing(said: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Name the facts that a row has and says otherwise."""
    for name, value in found.items():
        if name in said and said[name] != value:
            yield f"{name} {said[name]}, found {value}"
    if said["times"] > 1:
        yield f"listed {said['times']} times"


# ---- manifest.csv --------------------------------------------------------------------------------------------------


def _read_manifest(manifest: Path, tokens: Path) -> Lines:
    """Read its rows; paths may start at the token files' folder or at the manifest's."""
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (ValueError, csv.Error) as error:
        raise _Unreadable(str(error)) from error
    prefix = os.path.relpath(tokens, manifest.parent).replace(os.sep, "/") + "/"
    lines: Lines = {}
    for number, row in enumerate(rows, 2):
        if set(MANIFEST_COLUMNS) - {name for name, value in row.items() if value is not None}:
            raise _Unreadable(f"line {number} lacks one of {', '.join(MANIFEST_COLUMNS)}")
        _add(lines, row["rel_ecdc"].removeprefix(prefix), row)
    return lines


def _compare_manifest(line: Mapping[str, Any], file: AuditedFile) -> Iterator[str]:
    said = dict(line)
    with contextlib.suppress(ValueError):  # 75.0 and 75 say the same
        said["fps"] = f"{float(line['fps']):g}"
    found: dict[str, Any] = {}
    if file.codes is not None:
        found |= {"frames": f"{file.codes.frames}", "fps": f"{file.codes.frame_rate:g}"}
        found |= {"codebooks": f"{file.codes.num_codebooks}"}
    if file.values is not None:
        found["D"] = f"{file.values.statistics.shape[1]}"
    if bool(line["rel_cond"]) != file.has_sidecar:
        yield f"rel_cond {line['rel_cond'] or 'empty'}, found {file.sidecar if file.has_sidecar else 'no sidecar'}"
    yield from _differing(said, found)


# ---- data set ------------------------------------------------------------------------------------------------------


def _read_dataset(dataset: Path) -> Lines:
    """Read the rows of all splits without the package, which takes seconds to import.

    Source: the files that `datasets.DatasetDict.save_to_disk` writes.
    """
    lines: Lines = {}
    for split in _read_json(dataset / "dataset_dict.json", "splits"):
        for entry in _read_json(dataset / split / "state.json", "_data_files"):
            with (
                pa.memory_map(str(dataset / split / entry["filename"])) as source,
                pa.ipc.open_stream(source) as reader,
            ):
                for batch in reader:
                    for line in _rows(batch):
                        _add(lines, line["audio"].removeprefix("../").removeprefix("tokens/"), line | {"split": split})
    return lines


def _read_json(path: Path, key: str) -> Any:
    try:
        return json.loads(path.read_bytes())[key]
    except FileNotFoundError:
        raise _Unreadable(f"there is no {path.name} in {path.parent.name}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise _Unreadable(f"{path.name} in {path.parent.name} is damaged ({error!r})") from None


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the facts of a batch's rows; of codes and values that it holds itself, their digest."""
    names = set(batch.schema.names)
    if "audio" not in names:
        raise _Unreadable(f"its rows have no column audio; there are {', '.join(sorted(names))}")
    facts = batch.select([name for name in _COLUMNS if name in names])
    facts.validate(full=True)  # a damaged file could crash the process, or its text be no text
    rows = facts.to_pylist()
    for name, dtype in _INLINE.items():
        if name in names:
            for row, cell in zip(rows, batch.column(name), strict=True):
                numbers = None if not cell.is_valid else cell.values.flatten().to_numpy(zero_copy_only=False)
                row[name] = None if numbers is None else hashlib.sha256(numbers.astype(dtype).tobytes()).hexdigest()
    return rows


@dataclass(frozen=True)
class _DatasetFiles:
    """The files that a data set refers to, and those that they were made from."""

    dataset: Path
    tokens: Path

    def compare(self, line: Mapping[str, Any], file: AuditedFile) -> Iterator[str]:
        """Yield how a row differs from its token file and sidecar."""
        yield from _differing(line, self._facts(line, file))
        if file.codes is not None:
            yield from self._compare_file(line["audio"], file.tokens, file.codes.sha256)
        if line.get("cond") and file.values is not None:
            values, meta = file.values.sha256
            yield from self._compare_file(line["cond"], file.sidecar, values)
            described, source = (
                name.removesuffix(VALUES_SUFFIX) + META_SUFFIX for name in (line["cond"], file.sidecar)
            )
            yield from self._compare_file(described, source, meta)
        if "cond" in line and (line["cond"] is not None) != file.has_sidecar:
            yield f"cond {line['cond']}, found {file.sidecar if file.has_sidecar else 'no sidecar'}"

    def _facts(self, line: Mapping[str, Any], file: AuditedFile) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if file.codes is not None:
            names = ("frames", "num_codebooks", "num_samples", "sample_rate")
            facts |= {name: getattr(file.codes, name) for name in names}
            if "codes" in line and (digest := digest_codes(self.tokens / file.tokens)) is not None:
                facts["codes"] = digest
        if file.values is not None and file.values.names is not None:
            facts["cond_names"] = list(file.values.names)
            if "cond_values" in line:
                facts["cond_values"] = digest_values(self.tokens / file.sidecar)
        return facts

    def _compare_file(self, name: str, source: str, sha256: str) -> Iterator[str]:
        target = self.dataset / name
        if not target.is_file():
            yield f"{name} is {'a broken link' if target.is_symlink() else 'missing'}"
        elif _same_file(target, self.tokens / source):
            return
        elif hashlib.sha256(target.read_bytes()).hexdigest() != sha256:
            yield f"{name} differs from its original"


def _same_file(first: Path, second: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return first.samefile(second)
    return False


def _compare_pooled(dataset: Path, lines: Lines, present: Mapping[str, AuditedFile]) -> Iterator[str]:
    """Compare the statistics over all frames of a split, which training divides by, with those of the files."""
    splits: dict[str, list[AuditedFile]] = {}
    for path, line in lines.items():
        if "cond_names" in line:  # other writers' data sets have no such statistics
            splits.setdefault(line["split"], []).append(present[path])
    if not splits:
        return
    try:
        said = _read_json(dataset / "cond_stats.json", "splits")
        for split, files in splits.items():
            found, stated = _pool_files(files), said.get(split, {})
            for name in sorted(found.keys() | stated.keys()):
                if name not in found or name not in stated or not _agree(found[name], stated[name]):
                    yield f"cond_stats.json, split {split}, column {name}: {stated.get(name)}, found {found.get(name)}"
    except _Unreadable as error:
        yield str(error)
    except (AttributeError, TypeError) as error:
        yield f"cond_stats.json is damaged ({error})"


def _agree(found: Mapping[str, float], said: Mapping[str, Any]) -> bool:
    scale = max(abs(found["min"]), abs(found["max"]))
    return found["count"] == said.get("count") and all(
        isinstance(said.get(key), int | float) and abs(said[key] - found[key]) <= _TOLERANCE * scale + 1e-12
        for key in STATISTICS
    )


def _pool_files(files: Sequence[AuditedFile]) -> dict[str, dict[str, float]]:
    """Return column -> statistics over all frames of the files that have it."""
    parts: dict[str, list[np.ndarray]] = {}
    for file in files:
        if file.values is not None:
            for index, name in enumerate(file.values.names or ()):
                parts.setdefault(name, []).append(np.append(file.values.statistics[:, index], file.values.frames))
    return {name: pool(rows[-1], rows[:-1]) for name, columns in parts.items() for rows in [np.stack(columns, axis=1)]}


def pool(frames: np.ndarray, statistics: np.ndarray) -> dict[str, float]:
    """Return count, min, max, mean and standard deviation over all frames, in float64.

    Args:
        frames: (N,) frames of each file, at least one.
        statistics: (4, N), min, max, mean and standard deviation of each.
    """
    low, high, mean, deviation = statistics
    center = float(np.average(mean, weights=frames))
    spread = float(np.average(deviation**2 + (mean - center) ** 2, weights=frames)) ** 0.5
    return {
        "count": int(frames.sum()),
        "min": float(low.min()),
        "max": float(high.max()),
        "mean": center,
        "std": spread,
    }

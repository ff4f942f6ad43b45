"""Sidecars: `<id>.cond.npy`, one row of numbers per token frame, and `<id>.cond.json`, which says what they are.

JSON keys of version 1, as EncHF_Dataset defines it: `schema_version` 1, `fps`, `source_rate`, `names` (columns in
order), `norm` {`min`, `max`, `mean`, `std`} (one value a column). Ours besides: see `describe`.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.storage import atomic_write_bytes

VALUES_SUFFIX, META_SUFFIX, PENDING_SUFFIX = ".cond.npy", ".cond.json", ".cond.json.pending"
DTYPES = ("float16", "float32")
STATISTICS = ("min", "max", "mean", "std")

Statistics = dict[str, list[float]]


@dataclass(frozen=True)
class Sidecar:
    """The conditioning of one token file.

    Attributes:
        values: (T, D) float16 or float32; row n belongs to token frame n, whose time is (n + 0.5) / frame_rate s.
        names: D names of columns.
        units: D units ("dB", "Hz"); "" where there is none or nobody said.
        frame_rate: token frames per second, or None where an older file doesn't say.
        stats: "min", "max", "mean", "std" -> D numbers, as the file states them; {} where it doesn't.
        producers: who made which columns: {"name", "args", "columns", "fingerprint"}, in order of the calls.
        tokens_sha256: hex SHA-256 of the token file that the rows are aligned to, or None.
        values_sha256: hex SHA-256 of the `.npy` file as the JSON states it, or None.
        schema_version: of the file that was read.
    """

    values: np.ndarray
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    frame_rate: float | None = None
    stats: Mapping[str, Sequence[float]] = field(default_factory=dict)
    producers: tuple[Mapping[str, Any], ...] = ()
    tokens_sha256: str | None = None
    values_sha256: str | None = None
    schema_version: int = 1

    @property
    def frames(self) -> int:
        """Number of token frames T."""
        return self.values.shape[0]

    @property
    def dtype(self) -> str:
        """Name of the type of `values`."""
        return self.values.dtype.name

    def column(self, name: str) -> np.ndarray:
        """Return the (T,) values of a column.

        Raises:
            KeyError: there is no such column; names those there are.
        """
        if name not in self.names:
            raise KeyError(f"no column {name!r}; there are {list(self.names)}")
        return self.values[:, self.names.index(name)]


def paths_beside(tokens: Path) -> tuple[Path, Path]:
    """Return where the values and the JSON of a token file's sidecar lie."""
    stem = tokens.name.removesuffix(tokens.suffix)  # never with_suffix: stems hold dots ("pitch_64.00_amp_.75")
    return tokens.with_name(stem + VALUES_SUFFIX), tokens.with_name(stem + META_SUFFIX)


def skeleton(frames: int, frame_rate: float, dtype: str, tokens_sha256: str | None = None) -> Sidecar:
    """Return a sidecar of `frames` rows without columns."""
    return Sidecar(np.zeros((frames, 0), dtype), frame_rate=frame_rate, tokens_sha256=tokens_sha256)


def read(npy: Path, json_path: Path) -> Sidecar:
    """Read a sidecar of version 1 or 2 (EncHF_Dataset's `features` layout).

    Raises:
        ValueError: "<code>: <detail>" with the codes missing_sidecar, missing_json, bad_sidecar, bad_shape,
            duplicate_names and names_length_mismatch; the detail names the file.
    """
    values = _read_values(npy)
    meta = _read_json(json_path)
    version = meta.get("schema_version")
    if version not in (1, 2):
        raise ValueError(f"bad_sidecar: {json_path.name} has schema_version {version!r}; readable are 1 and 2")
    fields = _fields_v1(meta, json_path) if version == 1 else _fields_v2(meta, json_path)
    names = fields["names"]
    if len(set(names)) != len(names):
        raise ValueError(f"duplicate_names: {json_path.name} names columns twice: {_repeated(names)}")
    if len(names) != values.shape[1]:
        raise ValueError(
            f"names_length_mismatch: {json_path.name} names {len(names)} columns, {npy.name} has {values.shape[1]}"
        )
    return Sidecar(values, **fields, schema_version=version)


def _read_values(npy: Path) -> np.ndarray:
    try:
        values = np.load(npy, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"missing_sidecar: there is no {npy.name}") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"bad_sidecar: {npy.name} is not a NumPy array file ({error})") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        raise ValueError(f"bad_shape: {npy.name} has shape {np.shape(values)}; needs (frames, columns)")
    if values.dtype.kind != "f":
        raise ValueError(f"bad_sidecar: {npy.name} holds {values.dtype.name}; needs {' or '.join(DTYPES)}")
    return values


def _read_json(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"missing_json: there is no {path.name}") from None
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"bad_sidecar: {path.name} is not readable JSON ({error})") from error
    if not isinstance(meta, dict):
        raise ValueError(f"bad_sidecar: {path.name} holds a {type(meta).__name__}; needs an object")
    return meta


def _fields_v1(meta: Mapping[str, Any], path: Path) -> dict[str, Any]:
    names = meta.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"bad_sidecar: `names` in {path.name} is {names!r}; needs a list of strings")
    units: Any = meta.get("units")
    known = isinstance(units, list) and len(units) == len(names)
    norm, producers = meta.get("norm"), meta.get("producers")
    return {
        "names": tuple(names),
        "units": tuple(str(unit) for unit in units) if known else ("",) * len(names),
        "frame_rate": _number(meta.get("fps")),
        "stats": norm if isinstance(norm, dict) else {},
        "producers": tuple(entry for entry in producers if _is_entry(entry)) if isinstance(producers, list) else (),
        "tokens_sha256": meta.get("codes_sha256"),
        "values_sha256": meta.get("values_sha256"),
    }


def _fields_v2(meta: Mapping[str, Any], path: Path) -> dict[str, Any]:
    features = meta.get("features")
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise ValueError(f"bad_sidecar: `features` in {path.name} is not an object of objects")
    complete = all(key in feature for feature in features.values() for key in STATISTICS)
    stats = {key: [feature[key] for feature in features.values()] for key in STATISTICS} if complete else {}
    return {
        "names": tuple(features),
        "units": tuple(str(feature.get("units") or "") for feature in features.values()),
        "frame_rate": _number(meta.get("fps")),
        "stats": stats,
    }


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("columns"), list)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if list(names).count(name) > 1})


def compute_stats(values: np.ndarray) -> Statistics:
    """Compute each column's statistics in float64, over the stored (rounded) values.

    Args:
        values: (T, D).

    Returns:
        "min", "max", "mean", "std" (of the population) -> D numbers; empty lists where T or D is 0.
    """
    if values.size == 0:
        return {key: [] for key in STATISTICS}
    exact = values.astype(np.float64)
    low, high = exact.min(0), exact.max(0)
    mean = exact.mean(0).clip(low, high)  # the clip makes a constant column exact: std 0
    deviation = np.sqrt(((exact - mean) ** 2).mean(0))
    return {key: row.tolist() for key, row in zip(STATISTICS, (low, high, mean, deviation), strict=True)}


def describe(sidecar: Sidecar, values_sha256: str) -> dict[str, Any]:
    """Return the JSON of a sidecar, version 1.

    Keys beyond EncHF_Dataset's: `units` (a column each), `dtype`, `frames`, `frame_time` ("middle": row n is the
    state at (n + 0.5) / fps seconds), `codes_sha256` (of the token file), `values_sha256` (of the `.npy` file, so that
    a pair that doesn't belong together is seen), `producers`.
    """
    return {
        "schema_version": 1,
        "fps": sidecar.frame_rate,
        "source_rate": sidecar.frame_rate,
        "names": list(sidecar.names),
        "norm": compute_stats(sidecar.values),
        "units": list(sidecar.units),
        "dtype": sidecar.dtype,
        "frames": sidecar.frames,
        "frame_time": "middle",
        "codes_sha256": sidecar.tokens_sha256,
        "values_sha256": values_sha256,
        "producers": [dict(entry) for entry in sidecar.producers],
    }


def write(npy: Path, json_path: Path, sidecar: Sidecar) -> None:
    """Write both files, atomically together; files that would not change are left untouched.

    The JSON waits under another name until the values are in place, so that after a crash `recover` can tell which
    of the two pairs is complete.
    """
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(sidecar.values), allow_pickle=False)
    values = file.getvalue()
    meta = describe(sidecar, hashlib.sha256(values).hexdigest())
    text = (json.dumps(meta, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    if _holds(npy, values) and _holds(json_path, text):
        return
    pending = _pending(json_path)
    atomic_write_bytes(pending, text)
    atomic_write_bytes(npy, values)
    pending.replace(json_path)


def _pending(json_path: Path) -> Path:
    return json_path.with_name(json_path.name.removesuffix(META_SUFFIX) + PENDING_SUFFIX)


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def recover(npy: Path, json_path: Path) -> None:
    """Finish a `write` that was killed halfway, or undo it where the values had not been replaced yet."""
    pending = _pending(json_path)
    if not pending.is_file():
        return
    written = json.loads(pending.read_bytes())["values_sha256"]
    if npy.is_file() and hashlib.sha256(npy.read_bytes()).hexdigest() == written:
        pending.replace(json_path)
    else:
        pending.unlink()

"""The rows of the data set that `task=extract` builds: which items, their columns as Arrow tables, their statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from voxlab.audio import compute_duration
from voxlab.codecs import token_files
from voxlab.codecs.base import CodecInfo, Codes
from voxlab.data.items import AudioItem
from voxlab.data.names import inflected, listed
from voxlab.errors import UserError
from voxlab.ledger import Ledger
from voxlab.sidecars import schema
from voxlab.sidecars.schema import Sidecar
from voxlab.tasks.extract.stage import TOKENS, Stage

BATCH_ROWS = 64  # the codes and conditioning of so many rows are in memory at once
_TOO_LARGE = 2**63
_COLUMNS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "audio": pa.string(),
    "duration": pa.float64(),
    "frames": pa.int64(),
    "num_codebooks": pa.int64(),
    "num_samples": pa.int64(),
    "sample_rate": pa.int64(),
    "frame_rate": pa.float64(),
    "cond": pa.string(),
    "cond_names": pa.list_(pa.string()),
}
_INLINE: dict[str, pa.DataType] = {
    "codes": pa.list_(pa.list_(pa.int16())),
    "cond_values": pa.list_(pa.list_(pa.float32())),
}
_SCALES: dict[str, pa.DataType] = {"scales": pa.list_(pa.float32())}


@dataclass(frozen=True)
class Row:
    """One item of the data set.

    Attributes:
        item: its recording, with split and metadata.
        encoded: its record in the ledger of the stage encode.
        sidecar: its record in the ledger of the stage sidecars; None where it has none.
        suffix: of its token file.
    """

    item: AudioItem
    encoded: Mapping[str, Any]
    sidecar: Mapping[str, Any] | None
    suffix: str

    @property
    def tokens(self) -> str:
        """Name of the token file below `tokens/`."""
        return f"{self.item.id}{self.suffix}"

    @property
    def npy(self) -> str:
        """Name of the sidecar's values below `tokens/`."""
        return f"{self.item.id}{schema.VALUES_SUFFIX}"

    @property
    def json(self) -> str:
        """Name of the sidecar's description below `tokens/`."""
        return f"{self.item.id}{schema.META_SUFFIX}"

    def sizes(self) -> list[tuple[str, int]]:
        """Return (name below `tokens/`, size in bytes) of each of its files, as the stages recorded them."""
        found = [(self.tokens, self.encoded["stat"][0][0])]
        if self.sidecar is not None:
            found += [(name, stat[0]) for name, stat in zip((self.npy, self.json), self.sidecar["stat"], strict=True)]
        return found


def collect_rows(stage: Stage, info: CodecInfo, suffix: str) -> tuple[list[Row], dict[str, str]]:
    """Return the items that have tokens and, where the stage sidecars has run, no failed sidecar; sorted by id.

    And id -> reason of the items that have tokens, but a failed sidecar.

    Raises:
        UserError: sidecars belong to other token files, or token files to another codec.
    """
    encoded, sidecars = (Ledger(stage.out, name, stage.ranks).records for name in ("encode", "sidecars"))
    rows: list[Row] = []
    stale: list[str] = []
    failed: dict[str, str] = {}
    for item in stage.items:
        record, sidecar = encoded.get(item.id), sidecars.get(item.id)
        if record is None or "error" in record:
            continue
        if record["num_codebooks"] != info.num_codebooks:
            raise UserError(
                f"{stage.out / TOKENS / item.id}{suffix} has {record['num_codebooks']} codebooks, the codec "
                f"{info.name} writes {info.num_codebooks}. Run the stage encode again (stages=[encode,sidecars,build])."
            )
        if sidecar is not None and (sidecar["tokens"], sidecar.get("frames", record["frames"])) != (
            record["sha256"],
            record["frames"],
        ):
            stale.append(item.id)
        elif sidecar is not None and "error" in sidecar:
            failed[item.id] = str(sidecar["error"])
        else:
            rows.append(Row(item, record, sidecar, suffix))
    if stale:
        raise UserError(
            f"{inflected('{} [sidecar was|sidecars were] made', len(stale))} for other token files than are in "
            f"{stage.out / TOKENS} now: {listed(stale)}.\nRun the stage sidecars again (stages=[sidecars,build])."
        )
    return rows, failed


# ---- columns -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """The columns of the data set.

    Attributes:
        schema: names and types, in order.
        metadata: column -> the metadata's own name, which differs where it would hide another column.
    """

    schema: pa.Schema
    metadata: Mapping[str, str]


def plan_columns(rows: Sequence[Row], inline: bool, has_scales: bool) -> Columns:
    """Choose the columns of all splits together; a metadata column named like one of ours becomes `meta_<name>`.

    Raises:
        UserError: the values of a metadata column have types that don't go together.
    """
    types = _COLUMNS | (_INLINE | (_SCALES if has_scales else {}) if inline else {})
    reserved = _COLUMNS | _INLINE | _SCALES
    names = dict.fromkeys(name for row in rows for name in row.item.metadata)
    metadata: dict[str, str] = {}
    for name in names:
        column = name
        while column in reserved or (column != name and column in names):
            column = f"meta_{column}"
        metadata[column] = name
        types = types | {column: _metadata_type(name, rows)}
    return Columns(pa.schema(list(types.items())), metadata)


def _metadata_type(name: str, rows: Sequence[Row]) -> pa.DataType:
    examples: dict[type, str] = {}
    for row in rows:
        value = row.item.metadata.get(name)
        if isinstance(value, int) and abs(value) >= _TOO_LARGE:
            raise UserError(f"metadata column {name!r}: {value} ({row.item.id}) takes more than 64 bits; make it text.")
        if value is not None:
            examples.setdefault(type(value), row.item.id)
    if set(examples) == {int, float}:
        return pa.float64()
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    if len(examples) > 1 or not examples.keys() <= types.keys():
        found = ", ".join(f"{kind.__name__} ({item})" for kind, item in examples.items())
        raise UserError(
            f"metadata column {name!r} holds values of types that don't go together: {found}. Give it one type "
            "(text, whole numbers, decimal numbers or true/false) in the corpus's table."
        )
    return types[next(iter(examples))] if examples else pa.string()


def write_split(path: Path, rows: Sequence[Row], tokens: Path, prefix: str, columns: Columns, info: CodecInfo) -> None:
    """Write the rows of a split as an Arrow stream, a few at a time; equal input gives equal bytes.

    Args:
        path: file to write.
        rows: of one split.
        tokens: folder of the token files.
        prefix: path from the data set to that folder, as the columns `audio` and `cond` shall say it.
        columns: what to write.
        info: the codec.
    """
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, columns.schema) as stream:
        for first in range(0, len(rows), BATCH_ROWS):
            part = rows[first : first + BATCH_ROWS]
            values = [_values(row, prefix, columns, info) for row in part]
            inline = _inline_arrays(part, tokens) if "codes" in columns.schema.names else {}
            arrays = [
                inline[field.name] if field.name in inline else pa.array([v[field.name] for v in values], field.type)
                for field in columns.schema
            ]
            stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=columns.schema))


def _values(row: Row, prefix: str, columns: Columns, info: CodecInfo) -> dict[str, Any]:
    record = row.encoded
    values = {
        "id": row.item.id,
        "audio": f"{prefix}/{row.tokens}",
        "duration": compute_duration(record["num_samples"], info.sample_rate),
        "frames": record["frames"],
        "num_codebooks": record["num_codebooks"],
        "num_samples": record["num_samples"],
        "sample_rate": info.sample_rate,
        "frame_rate": info.frame_rate,
        "cond": None if row.sidecar is None else f"{prefix}/{row.npy}",
        "cond_names": [] if row.sidecar is None else row.sidecar["names"],
    }
    return values | {column: row.item.metadata.get(name) for column, name in columns.metadata.items()}


def _inline_arrays(rows: Sequence[Row], tokens: Path) -> dict[str, pa.Array]:
    codes = [_read_codes(tokens / row.tokens) for row in rows]
    conds = [None if row.sidecar is None else read_sidecar(row, tokens).values for row in rows]
    books = [[book[0].numpy().astype(np.int16) for book in item.codebooks] for item in codes]
    scales = [None if item.scales is None else item.scales[0].numpy() for item in codes]
    return {
        "codes": pa.array(books, _INLINE["codes"]),
        "cond_values": _nested(conds),
        "scales": pa.array(scales, _SCALES["scales"]),
    }


def _read_codes(path: Path) -> Codes:
    try:
        return token_files.read_tokens(path).codes
    except ValueError as error:
        raise UserError(
            f"{error}\nRun the stage encode again, or set build.inline=false, which leaves the token files unread."
        ) from None


def _nested(matrices: Sequence[np.ndarray | None]) -> pa.ListArray:
    """Return (T, D) matrices as list<list<float>>; far faster than pyarrow's own conversion, frame by frame."""
    present = [np.zeros((0, 0)) if matrix is None else matrix for matrix in matrices]
    widths = np.concatenate([np.full(len(matrix), matrix.shape[1]) for matrix in present])
    values = np.concatenate([matrix.reshape(-1).astype(np.float32) for matrix in present])
    frames = pa.ListArray.from_arrays(_offsets(widths), pa.array(values))
    empty = pa.array([matrix is None for matrix in matrices])
    return pa.ListArray.from_arrays(_offsets([len(matrix) for matrix in present]), frames, mask=empty)


def _offsets(lengths: Sequence[int] | np.ndarray) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


# ---- statistics ----------------------------------------------------------------------------------------------------


def read_sidecar(row: Row, tokens: Path) -> Sidecar:
    """Return a row's sidecar, which it must have.

    Raises:
        UserError: it is broken, or doesn't fit its record or the tokens.
    """
    assert row.sidecar is not None
    again = "Delete it and run the stage sidecars again (stages=[sidecars,build])."
    try:
        found = schema.read(tokens / row.npy, tokens / row.json)
    except ValueError as error:
        raise UserError(f"{error} ({tokens / row.npy}).\n{again}") from None
    wanted = (row.encoded["frames"], row.sidecar["names"])
    if (found.frames, list(found.names)) != wanted:
        raise UserError(
            f"{tokens / row.npy} has {found.frames} frames and the columns {list(found.names)}; expected {wanted[0]} "
            f"and {wanted[1]}.\n{again}"
        )
    if not np.isfinite(found.values).all():
        raise UserError(f"{tokens / row.npy} holds values that are not finite (NaN or infinity).\n{again}")
    return found


@dataclass
class Pooled:
    """Running statistics of one column over the frames of many items, in float64."""

    unit: str
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean
    minimum: float = float("inf")
    maximum: float = float("-inf")

    def add(self, values: np.ndarray) -> None:
        """Take in (T,) values, T >= 1; stable in any order. Source: Chan, Golub, LeVeque 1983."""
        low, high, count = float(values.min()), float(values.max()), self.count + len(values)
        mean = min(max(float(values.mean()), low), high)  # exact for a constant column, whose std must be 0
        shift = mean - self.mean
        self.squares += float(np.square(values - mean).sum()) + shift * shift * self.count * len(values) / count
        self.mean += shift * len(values) / count
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.count = count

    def result(self) -> dict[str, Any]:
        """Return unit, count, mean, std (of the population), min and max."""
        numbers = {"mean": self.mean, "std": (self.squares / self.count) ** 0.5}
        return {"unit": self.unit, "count": self.count, **numbers, "min": self.minimum, "max": self.maximum}


def pool_statistics(rows: Sequence[Row], tokens: Path) -> dict[str, dict[str, Any]]:
    """Return column -> unit and statistics over all frames of the rows, of the values as they are stored."""
    pooled: dict[str, Pooled] = {}
    for row in rows:
        if row.sidecar is not None:
            sidecar = read_sidecar(row, tokens)
            for index, name in enumerate(sidecar.names):
                column = pooled.setdefault(name, Pooled(sidecar.units[index] if sidecar.units else ""))
                column.add(sidecar.values[:, index].astype(np.float64))
    return {name: column.result() for name, column in pooled.items()}

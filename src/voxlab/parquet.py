"""Parquet tables in work units: plan them from footers, keep finished parts, assemble whole files.

A unit is (file, row group, slice of at most `unit_rows` rows). Its part holds the new columns only; the original
columns are read from the source again when the file is assembled, so they are written once. A part or file is done
when it can be opened and its footer names the right fingerprint and source.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from voxlab.storage import atomic_path

STAMP = b"voxlab"
STATE = ".state"
# Arrow grows its buffers by doubling: a few rows of audio at a time keep the overshoot small.
_PIECE_ROWS = 8


@dataclass(frozen=True)
class Source:
    """A readable input file: `name` is its path relative to the corpus root, in POSIX form."""

    path: Path
    name: str
    row_groups: tuple[int, ...]
    signature: str
    schema: pa.Schema

    @property
    def num_rows(self) -> int:
        """Rows in the whole file."""
        return sum(self.row_groups)


@dataclass(frozen=True)
class Unit:
    """Rows [start, stop) of one row group of `source`; `first_row` is `start` counted from the file's first row."""

    source: Source
    ordinal: int
    row_group: int
    start: int
    stop: int
    first_row: int

    @property
    def num_rows(self) -> int:
        """Rows in this unit."""
        return self.stop - self.start


def open_source(path: Path, root: Path) -> Source:
    """Read the footer of `path`.

    Raises:
        OSError, pa.ArrowInvalid: the file is truncated or no Parquet file.
    """
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        groups = tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
        return Source(path, path.relative_to(root).as_posix(), groups, _signature(path), file.schema_arrow)


def _signature(path: Path) -> str:
    """Hash a file's size and footer, which holds the size and bounds of every column chunk: cheap, not watertight."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(size - 8)
        footer_length = int.from_bytes(file.read(4), "little")
        file.seek(size - 8 - footer_length)
        return hashlib.sha256(f"{size}|".encode() + file.read(footer_length)).hexdigest()[:16]


def plan_units(source: Source, unit_rows: int) -> list[Unit]:
    """Cut every row group into slices of at most `unit_rows` rows."""
    units: list[Unit] = []
    first_row = 0
    for group, rows in enumerate(source.row_groups):
        for start in range(0, rows, unit_rows):
            stop = min(start + unit_rows, rows)
            units.append(Unit(source, len(units), group, start, stop, first_row + start))
        first_row += rows
    return units


def read_unit(unit: Unit, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a unit's rows; only `columns` when given.

    Raises:
        OSError, pa.ArrowInvalid: the row group is damaged.
    """
    with _open(unit.source.path) as file:
        table = file.read_row_group(unit.row_group, columns=None if columns is None else list(columns))
    return table.slice(unit.start, unit.num_rows)


def _open(path: Path) -> pq.ParquetFile:
    """Open for reading a page at a time: whole column chunks of audio would be held twice."""
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)


def part_path(out: Path, unit: Unit) -> Path:
    """Name the file that holds a finished unit's new columns."""
    return out / STATE / unit.source.name / f"unit-{unit.ordinal:05d}.parquet"


def stamp(fingerprint: str, source: Source, counts: Mapping[str, Any]) -> dict[str, Any]:
    """Describe what a part or file was made from, for its footer."""
    return {"fingerprint": fingerprint, "source": source.signature, **counts}


def spell_stamp(mark: Mapping[str, Any]) -> bytes:
    """Write a stamp as it stands in a footer: canonical JSON."""
    return json.dumps(dict(mark), sort_keys=True).encode()


def read_stamp(path: Path) -> dict[str, Any] | None:
    """Read the stamp in a Parquet footer; None when the file is absent, unreadable or not ours."""
    if not path.is_file():
        return None
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return json.loads(metadata[STAMP])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError):
        return None


def is_current(path: Path, fingerprint: str, source: Source) -> bool:
    """Tell whether `path` is complete and was made from this source with these settings."""
    found = read_stamp(path)
    return found is not None and (found["fingerprint"], found["source"]) == (fingerprint, source.signature)


def write_part(path: Path, table: pa.Table, mark: Mapping[str, Any]) -> None:
    """Write one unit's new columns, atomically, with its stamp."""
    stamped = table.replace_schema_metadata({STAMP: spell_stamp(mark)})
    with atomic_path(path) as temporary:
        # Short-lived and mostly audio, which neither compression nor dictionaries make smaller.
        pq.write_table(stamped, temporary, compression="none", use_dictionary=False)


def assemble(
    out: Path,
    source: Source,
    units: Sequence[Unit],
    new_columns: pa.Schema,
    metadata: Mapping[bytes, bytes],
    *,
    plain: Sequence[str] = (),
) -> Path:
    """Join the original columns and the parts of one file into the published file, one row group a unit.

    Args:
        out: output folder; the file keeps its name relative to the corpus root.
        source: the input file.
        units: every unit of the file, in order.
        new_columns: names and types of the columns in the parts.
        metadata: key-value metadata of the published file.
        plain: columns to store uncompressed (raw float audio gains 6 % for much work).

    Returns:
        The path of the published file; its parts are deleted.
    """
    target = out / source.name
    schema = pa.schema([*source.schema, *new_columns]).with_metadata(dict(metadata))
    with atomic_path(target) as temporary, _open_writer(temporary, schema, plain) as writer:
        for unit, table in _stream(source, units):
            with _open(part_path(out, unit)) as part:
                new = pa.Table.from_batches(part.iter_batches(batch_size=_PIECE_ROWS), part.schema_arrow)
            for name in new_columns.names:
                table = table.append_column(name, new.column(name))
            writer.write_table(table, row_group_size=unit.num_rows)
            del table, new  # before the next unit is read: two of them would be held
        if _signature(source.path) != source.signature:
            raise pa.ArrowInvalid("the file changed while it was read; run the same command again")
    delete_parts(out, source.name)
    return target


def _stream(source: Source, units: Sequence[Unit]) -> Iterator[tuple[Unit, pa.Table]]:
    """Yield units with all their columns, reading each row group once and in pieces, however large it is."""
    with _open(source.path) as file:
        for group, members in itertools.groupby(units, key=lambda unit: unit.row_group):
            rows = source.schema.empty_table()
            batches = None
            for unit in members:
                batches = batches or file.iter_batches(batch_size=_PIECE_ROWS, row_groups=[group])
                while rows.num_rows < unit.num_rows:
                    batch = pa.Table.from_batches([next(batches)])
                    rows = pa.concat_tables([rows, batch]) if rows.num_rows else batch
                yield unit, rows.slice(0, unit.num_rows)
                rows = rows.slice(unit.num_rows)


def _open_writer(path: Path, schema: pa.Schema, plain: Sequence[str]) -> pq.ParquetWriter:
    leaves = _leaf_paths(schema)
    options: dict[str, Any] = {
        "compression": {leaf: "none" if leaf in plain else "zstd" for leaf in leaves},
        "compression_level": {leaf: 3 for leaf in leaves if leaf not in plain},
        # Dictionaries pay for text and codes and only cost time on audio.
        "use_dictionary": [leaf for leaf in leaves if leaf not in plain and not leaf.endswith(".bytes")],
    }
    return pq.ParquetWriter(path, schema, **options)


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """Return the dotted column paths under which Parquet stores `schema`."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [leaves.column(index).path for index in range(len(leaves))]


def delete_parts(out: Path, name: str) -> None:
    """Delete the parts of the file `name` and the folders that become empty."""
    folder = out / STATE / name
    if folder.is_dir():
        for part in folder.iterdir():
            part.unlink()
    while folder != out and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent

"""Recordings that lie in the cells of Parquet files: an `AudioItem` for each row, read when it is asked for."""

import functools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from voxlab.data.items import AudioItem
from voxlab.errors import UserError
from voxlab.parquet import Source

_LOCK = Lock()


def list_cells(sources: Sequence[Source], column: str, pattern: str, *, skip: Sequence[str] = ()) -> list[AudioItem]:
    """Return an item for each row, sorted by id: the file's name below the pattern's folders, and the row's number.

    All are in split train. The file `data/train-00000-of-00325.parquet`, found by `data/*.parquet`, gives
    `train-00000-of-00325/000000` and so on.

    Args:
        sources: files that have the column.
        column: struct<bytes, path> with a complete audio file in `bytes`, or the bytes alone.
        pattern: the glob that found the files.
        skip: columns that are no metadata.

    Raises:
        UserError: a column of another type, or two files of one name; names them all.
    """
    wrong = [f"{one.name}: {one.schema.field(column).type}" for one in sources if not _is_audio(one, column)]
    if wrong:
        raise UserError(
            f"column {column} must hold complete audio files (binary, or a struct with `bytes`):\n  "
            + "\n  ".join(wrong)
            + "\nName the right one: data.audio_column=..."
        )
    items = [item for source in sources for item in _items(source, column, pattern, {column, *skip})]
    ids = {item.id for item in items}
    if len(ids) < len(items):
        raise UserError(f"data.pattern={pattern}: several files have one name but for the suffix. Match one of them.")
    return sorted(items, key=lambda item: item.id)


def _is_audio(source: Source, column: str) -> bool:
    kind = source.schema.field(column).type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _items(source: Source, column: str, pattern: str, skip: set[str]) -> list[AudioItem]:
    name = PurePosixPath(source.name).relative_to(_fixed_part(pattern)).with_suffix("").as_posix()
    names = [field.name for field in source.schema if field.name not in skip and _is_plain(field.type)]
    rows = pq.read_table(source.path, columns=names).to_pylist() if names else [{}] * source.num_rows
    places = [(group, index) for group, count in enumerate(source.row_groups) for index in range(count)]
    return [
        AudioItem(
            id=f"{name}/{row:06d}",
            path=source.path,
            split="train",
            stamp=f"{source.signature}:{row}",
            metadata=values,
            content=functools.partial(_read_cell, source.path, source.signature, column, *place),
        )
        for row, (place, values) in enumerate(zip(places, rows, strict=True))
    ]


def _fixed_part(pattern: str) -> PurePosixPath:
    """Return the folders of a glob before its first wildcard."""
    parts = PurePosixPath(pattern).parts[:-1]
    wild = next((n for n, part in enumerate(parts) if any(sign in part for sign in "*?[")), len(parts))
    return PurePosixPath(*parts[:wild])


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    text = types.is_string(kind) or types.is_large_string(kind)
    return text or types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _read_cell(path: Path, signature: str, column: str, group: int, index: int) -> bytes:
    """Read one recording.

    Raises:
        OSError, ValueError: the row group is damaged, or the cell is null (`bad_audio:null`).
    """
    with _LOCK:  # threads ask for neighbours: one of them reads for all
        cells = _read_group(path, signature, column, group)
    cell: Any = cells[index].as_py()
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None:
        raise ValueError("bad_audio:null: the cell holds no audio")
    return data


@functools.lru_cache(maxsize=2)
def _read_group(path: Path, signature: str, column: str, group: int) -> pa.ChunkedArray:
    """Read one column of a row group; the last two stay in memory, because its rows are asked for one by one."""
    with pq.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(column)

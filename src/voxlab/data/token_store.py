"""Windows of codes and conditioning out of a built data set, reading no other bytes: inline Arrow columns, or files.

Both stores have the same two methods; `TokenDataset` holds one.
"""

import os
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from voxlab.codecs import token_files
from voxlab.codecs.token_files import TokenHeader
from voxlab.errors import UserError

_MAX_CACHED = 100_000  # headers; about 1 kB each


class TokenStore(Protocol):
    """Reads windows by row number."""

    def codes(self, row: int, start: int, stop: int) -> np.ndarray:
        """Return the codes of the frames start..stop-1, integers (K, stop - start)."""
        ...

    def cond(self, row: int, start: int, stop: int) -> np.ndarray:
        """Return the conditioning of the frames start..stop-1, floats (stop - start, D), all columns."""
        ...


def open_store(root: Path, table: pa.Table) -> TokenStore:
    """Choose the inline columns where the data set has them, else its files."""
    return InlineStore(table) if "codes" in table.column_names else FileStore(root, table)


class _Piece(NamedTuple):
    """One chunk of a list<list<number>> column: where rows and inner lists begin, and all numbers."""

    rows: np.ndarray
    lists: np.ndarray
    values: np.ndarray


class NestedColumn:
    """A column of list<list<number>> as one matrix a row: views into its (memory-mapped) buffers, nothing is copied.

    Args:
        column: its inner lists have one length within a row; null counts as no inner lists.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._first_rows = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])
        self._pieces = [_Piece(*self._buffers(chunk)) for chunk in column.chunks]

    @staticmethod
    def _buffers(chunk: pa.ListArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        inner = chunk.values
        return tuple(array.to_numpy(zero_copy_only=True) for array in (chunk.offsets, inner.offsets, inner.values))

    def __getitem__(self, row: int) -> np.ndarray:
        number = int(np.searchsorted(self._first_rows, row, side="right")) - 1 if len(self._pieces) > 1 else 0
        piece, local = self._pieces[number], row - int(self._first_rows[number])
        first, last = int(piece.rows[local]), int(piece.rows[local + 1])
        if first == last:
            return piece.values[:0].reshape(0, 0)
        return piece.values[piece.lists[first] : piece.lists[last]].reshape(last - first, -1)


class InlineStore:
    """Reads the columns `codes` and `cond_values`."""

    def __init__(self, table: pa.Table) -> None:
        self._codes, self._cond = NestedColumn(table["codes"]), NestedColumn(table["cond_values"])

    def codes(self, row: int, start: int, stop: int) -> np.ndarray:
        """Return integers (K, stop - start)."""
        return self._codes[row][:, start:stop]

    def cond(self, row: int, start: int, stop: int) -> np.ndarray:
        """Return floats (stop - start, D)."""
        return self._cond[row][start:stop]


class _Layout(NamedTuple):
    """Where the numbers of a `.npy` file lie."""

    path: str
    dtype: np.dtype
    width: int
    offset: int


class FileStore:
    """Reads token files and `.cond.npy` files, each by the bytes of the window alone; headers are read once."""

    def __init__(self, root: Path, table: pa.Table) -> None:
        self._root, self._audio, self._paths = root, table["audio"], table["cond"]
        self._headers: dict[int, TokenHeader] = {}
        self._layouts: dict[int, _Layout] = {}

    def codes(self, row: int, start: int, stop: int) -> np.ndarray:
        """Return integers (K, stop - start); raises UserError where the file is missing or broken."""
        try:
            header = self._headers.get(row) or self._read_header(row)
            return token_files.read_window(header, start, stop).numpy()
        except (OSError, ValueError) as error:
            raise UserError(
                f"can't read {self._root / self._audio[row].as_py()}: {error}\n"
                f"Was {self._root} moved without the folder that it links to? Build it again (stages=[build])."
            ) from error

    def _read_header(self, row: int) -> TokenHeader:
        if len(self._headers) >= _MAX_CACHED:
            self._headers.clear()
        self._headers[row] = header = token_files.read_header(self._root / self._audio[row].as_py())
        return header

    def cond(self, row: int, start: int, stop: int) -> np.ndarray:
        """Return floats (stop - start, D); raises UserError where the file is missing or broken."""
        try:
            layout = self._layouts.get(row) or self._read_layout(row)
            size = layout.width * layout.dtype.itemsize
            file = os.open(layout.path, os.O_RDONLY)
            try:
                data = os.pread(file, (stop - start) * size, layout.offset + start * size)
            finally:
                os.close(file)
            return np.frombuffer(data, layout.dtype).reshape(stop - start, layout.width)
        except (OSError, ValueError) as error:
            raise UserError(
                f"can't read the frames {start} to {stop} of {self._root / self._paths[row].as_py()}: {error}\n"
                "Build the data set again (stages=[sidecars,build])."
            ) from error

    def _read_layout(self, row: int) -> _Layout:
        path = self._root / self._paths[row].as_py()
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_column, dtype = read(file)
            if len(shape) != 2 or by_column or dtype.kind != "f":
                raise ValueError(f"shape {shape}, {dtype}, Fortran order {by_column}; needs rows of floats (T, D)")
            if len(self._layouts) >= _MAX_CACHED:
                self._layouts.clear()
            self._layouts[row] = layout = _Layout(str(path), dtype, shape[1], file.tell())
        return layout

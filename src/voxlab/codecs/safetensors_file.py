"""Small safetensors files: written with sorted keys, so that equal content gives equal bytes; read with checks.

The library's writer orders the metadata by hash, differently in each run; its reader reads these files.
Source: the format's description at github.com/huggingface/safetensors.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_SIZE = struct.Struct("<Q")
_DTYPES = {"I16": np.dtype("<i2"), "F32": np.dtype("<f4")}
_MAX_JSON = 1 << 16
HEADER_BYTES = _SIZE.size + _MAX_JSON


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in the file; `offset` in bytes from the file's start."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Table:
    """What the header of a file says."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]

    def load(self, name: str, data: bytes) -> np.ndarray:
        """Return a tensor out of the complete file."""
        entry = self.entries[name]
        count = int(np.prod(entry.shape, dtype=np.int64))
        return np.frombuffer(data, entry.dtype, count, entry.offset).reshape(entry.shape)


def is_safetensors(data: bytes) -> bool:
    """Tell whether a file begins like one: a plausible size, then JSON."""
    return len(data) > _SIZE.size and data[8:9] == b"{" and _SIZE.unpack_from(data)[0] <= _MAX_JSON


def write(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Return a complete file of int16 and float32 tensors."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    blocks, at = [], 0
    for name, tensor in tensors.items():
        block = np.ascontiguousarray(tensor).tobytes()
        offsets = [at, at + len(block)]
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        blocks.append(block)
        at += len(block)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([_SIZE.pack(len(text)), text, *blocks])


def read_table(data: bytes, size: int) -> Table:
    """Read the header.

    Args:
        data: the file, or its first `HEADER_BYTES`.
        size: bytes of the complete file.

    Raises:
        ValueError: `bad_safetensors: ...`, what is wrong with it.
    """
    length = _SIZE.unpack_from(data)[0] if len(data) >= _SIZE.size else 0
    start = _SIZE.size + length
    if not 0 < length <= _MAX_JSON or len(data) < start:
        raise ValueError(f"bad_safetensors: header claims {length} bytes; the file has {size}")
    try:
        header = json.loads(data[_SIZE.size : start])
        metadata = header.pop("__metadata__", {})
        entries = {name: _entry(value, start) for name, value in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"bad_safetensors: header cannot be read ({type(error).__name__}: {error})") from None
    needed = max((end for _, end in entries.values()), default=start)
    if size < needed:
        raise ValueError(f"bad_safetensors: file has {size} bytes, needs {needed}")
    return Table({name: entry for name, (entry, _) in entries.items()}, metadata)


def _entry(value: Mapping, start: int) -> tuple[Entry, int]:
    dtype, shape = _DTYPES[value["dtype"]], tuple(int(size) for size in value["shape"])
    low, high = (int(offset) for offset in value["data_offsets"])
    if min((low, *shape)) < 0 or high - low != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"a tensor of shape {shape} at bytes {low} to {high}")
    return Entry(dtype, shape, start + low), start + high

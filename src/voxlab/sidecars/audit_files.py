"""Files as an audit reads them: token files through `codecs`, sidecars raw, since it has to say what is broken in them.

Whatever is wrong with a file ends as a `Broken` with the reason.
"""

import ast
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.codecs import ecdc, token_files
from voxlab.codecs.token_headers import TokenHeader, parse_header
from voxlab.sidecars.audit_types import Expectation, Issue, TokenFacts


class Broken(ValueError):
    """The file can't be read; the text says why."""


def read_codes(path: Path, expect: Expectation) -> tuple[TokenFacts, list[Issue]]:
    """Read a token file, and check its codes against the codebook.

    Raises:
        Broken: it can't be read.
    """
    try:
        data = path.read_bytes()
        header, issues = _check_codes(path, data, expect)
    except Exception as error:  # a damaged archive makes the libraries below raise anything
        text = str(error).removesuffix(f" ({path})").removeprefix("bad_ecdc: ")
        raise Broken(text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}") from error
    facts = TokenFacts(
        codec=header.codec,
        weights_id=header.weights_id,
        frames=header.num_frames,
        num_codebooks=header.num_codebooks,
        codebook_size=header.codebook_size,
        num_samples=header.num_samples,
        sample_rate=header.sample_rate,
        frame_rate=header.frame_rate,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return facts, issues


def _check_codes(path: Path, data: bytes, expect: Expectation) -> tuple[TokenHeader, list[Issue]]:
    """Return the header, and what is wrong with the codes: not looked at where the container allows no wrong ones."""
    if data.startswith(ecdc.MAGIC):
        header = parse_header(path, data, len(data))
        exact = (expect.codebook_size or header.codebook_size) >= 1 << ecdc.BITS
        if header.lm or (exact and header.sample_rate == 24_000):
            return header, []
    file = token_files.read_tokens(path)
    size, issues = expect.codebook_size or file.codebook_size, list[Issue]()
    for number, book in enumerate(file.codes.codebooks):
        low, high = int(book.min()), int(book.max())
        if not issues and not 0 <= low <= high < size:
            issues = [("codes_out_of_range", f"codebook {number} has codes {low} to {high}, allowed 0 to {size - 1}")]
    if file.codes.scales is not None and not bool(file.codes.scales.isfinite().all()):
        issues.append(("nonfinite", "NaN or infinite scale factors beside the codes"))
    return file, issues


def digest_codes(path: Path) -> str | None:
    """Return the SHA-256 of a readable file's codes as int16, codebook by codebook; None where entropy-coded."""
    if token_files.read_header(path).lm:
        return None
    books = token_files.read_tokens(path).codes.codebooks
    return hashlib.sha256(b"".join(book.numpy().astype("<i2").tobytes() for book in books)).hexdigest()


def digest_values(path: Path) -> str:
    """Return the SHA-256 of a readable sidecar's values as float32, frame by frame."""
    return hashlib.sha256(np.ascontiguousarray(read_values(path)[0], "<f4").tobytes()).hexdigest()


def read_values(path: Path) -> tuple[np.ndarray, str]:
    """Read an array of numbers, which must fill its file exactly; returns it with the file's SHA-256 in hex.

    Raises:
        Broken: it can't be read.

    Source: the NPY format, described in numpy/lib/format.py.
    """
    data = _read_bytes(path)
    if data[:6] != b"\x93NUMPY" or data[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise Broken(f"{path.name} is not a NPY file, it begins with {data[:8]!r}")
    width = 2 if data[6] == 1 else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    try:
        head = ast.literal_eval(data[8 + width : start].decode("utf-8"))
        dtype, shape, fortran = np.dtype(head["descr"]), tuple(map(int, head["shape"])), bool(head["fortran_order"])
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
        raise Broken(f"{path.name} has a damaged NPY header ({type(error).__name__})") from None
    if dtype.kind not in "fiub":
        raise Broken(f"{path.name} holds values of type {dtype}, not numbers")
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or len(data) - start != needed:
        raise Broken(f"{path.name} has {len(data) - start} bytes of values; {dtype} of shape {shape} needs {needed}")
    values = np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")
    return values, hashlib.sha256(data).hexdigest()


def read_meta(path: Path) -> tuple[dict[str, Any], str]:
    """Read the JSON of a sidecar; returns it with the file's SHA-256 in hex.

    Raises:
        Broken: it can't be read.
    """
    data = _read_bytes(path)
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Broken(f"{path.name} is not JSON ({error})") from None
    if not isinstance(meta, dict):
        raise Broken(f"{path.name} is not a JSON object")
    version = meta.get("schema_version")
    if version not in (1, 2) or isinstance(version, bool):
        raise Broken(f"{path.name} has schema_version {version!r}; 1 and 2 can be read")
    return meta, hashlib.sha256(data).hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Broken(f"{path.name} can't be read: {error.strerror or error}") from error

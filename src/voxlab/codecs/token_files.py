"""Token files, one a recording, whatever their container: written, sniffed, read whole or a window of frames at a time.

Containers: `ecdc` (ecdc.py), `torch` (ecdc_legacy.py) and `safetensors`: int16 `codes` (K, T), or `codes.0` (N_0,) ...
for codebooks of different rates; float32 `scales` (S,) where the codec has them; strings format_version "1", codec,
weights_id, sample_rate, hop_length, num_codebooks, codebook_size, num_samples, strides (JSON list).
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxlab.codecs import ecdc, ecdc_legacy, safetensors_file
from voxlab.codecs.base import CodecInfo, Codes, check_codes, stack, unstack
from voxlab.codecs.ecdc import EcdcHeader, EntropyCoder
from voxlab.codecs.safetensors_file import Table
from voxlab.codecs.token_headers import (
    FORMAT_VERSION,
    HEADER_BYTES,
    TokenFile,
    TokenHeader,
    legacy_header,
    parse_header,
    segments_of,
)
from voxlab.errors import UserError
from voxlab.storage import atomic_write_bytes

CONTAINERS = ("auto", "ecdc", "safetensors", "torch")
SUFFIXES = (".ecdc", ".safetensors")


def resolve_container(info: CodecInfo, container: str) -> str:
    """Return the container that `container` means for a codec: "auto" is ecdc where that can hold its codes.

    Raises:
        UserError: the word is unknown, or that container cannot hold the codec's codes.
    """
    if container not in CONTAINERS:
        raise UserError(f"container={container!r} is unknown; allowed: {', '.join(CONTAINERS)}")
    known = ecdc.format_of(info)
    chosen = ("safetensors" if known is None else "ecdc") if container == "auto" else container
    if chosen == "ecdc" and known is None:
        raise UserError(f"container=ecdc holds EnCodec at 24 or 48 kHz, not {info.name}; set container=safetensors")
    if chosen == "torch" and (known is None or known.has_scales):
        raise UserError(f"container=torch holds EnCodec at 24 kHz, not {info.name} at {info.sample_rate} Hz")
    if chosen == "safetensors" and info.codebook_size > 1 << 15:
        raise UserError(f"container=safetensors holds codes up to 32767; {info.name} has {info.codebook_size}")
    return chosen


def suffix(info: CodecInfo, container: str = "auto") -> str:
    """Return the suffix of a codec's token files: ".ecdc" or ".safetensors"."""
    return ".safetensors" if resolve_container(info, container) == "safetensors" else ".ecdc"


def spell_tokens(
    codes: Codes,
    info: CodecInfo,
    container: str = "auto",
    *,
    lm: EntropyCoder | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Return the complete token file of one item; equal codes give equal bytes.

    Args:
        codes: a batch of one.
        info: the codec that made them.
        container: one of `CONTAINERS`.
        lm: entropy coder, for the container ecdc.
        metadata: further strings, for the container safetensors.

    Raises:
        UserError: see `resolve_container`.
        ValueError: the codes are out of range or do not fit together.
    """
    chosen = resolve_container(info, container)
    if chosen == "ecdc":
        return ecdc.write_ecdc(codes, info, lm)
    if chosen == "torch":
        return ecdc_legacy.write_legacy(codes, info)
    check_codes(codes, info)
    return safetensors_file.write(_tensors(codes, info), {**(metadata or {}), **_facts(codes, info)})


def write_tokens(path: Path, codes: Codes, info: CodecInfo, container: str = "auto", **options: Any) -> str:
    """Write `spell_tokens(...)` to `path`, atomically; returns the SHA-256 of the file, in hex."""
    data = spell_tokens(codes, info, container, **options)
    atomic_write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def _tensors(codes: Codes, info: CodecInfo) -> dict[str, np.ndarray]:
    frames = int(codes.lengths[0])
    if set(info.strides) == {1}:
        tensors = {"codes": stack(codes)[0, :, :frames].numpy().astype("<i2")}
    else:
        books = [book[0, : frames // step] for book, step in zip(codes.codebooks, info.strides, strict=True)]
        tensors = {f"codes.{k}": book.numpy().astype("<i2") for k, book in enumerate(books)}
    if codes.scales is not None:  # factors are above 0: zeros are a batch's padding
        tensors["scales"] = np.trim_zeros(codes.scales[0].numpy(), "b").astype("<f4")
    return tensors


def _facts(codes: Codes, info: CodecInfo) -> dict[str, str]:
    whole = codes.lengths * info.hop_length
    return {
        "format_version": FORMAT_VERSION,
        "codec": info.name,
        "weights_id": info.weights_id,
        "sample_rate": str(info.sample_rate),
        "hop_length": str(info.hop_length),
        "num_codebooks": str(info.num_codebooks),
        "codebook_size": str(info.codebook_size),
        "num_samples": str(int((whole if codes.num_samples is None else codes.num_samples)[0])),
        "strides": json.dumps(info.strides),
    }


def read_header(path: Path) -> TokenHeader:
    """Read what a token file says of itself, and check that its size fits; codes are left unread (torch excepted).

    Raises:
        OSError: the file cannot be read.
        ValueError: `bad_ecdc: ...` or `bad_safetensors: ...`, with the file.
    """
    with path.open("rb") as file, _naming(path):
        data, size = file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size
        if data[:4] == ecdc_legacy.MAGIC:
            return legacy_header(path, ecdc_legacy.read_legacy(data + file.read()))
        return parse_header(path, data, size)


def read_tokens(path: Path, lm: EntropyCoder | None = None) -> TokenFile:
    """Read a token file, whatever its container.

    Args:
        path: the file.
        lm: the entropy coder, for files that were written with one.

    Raises:
        OSError: the file cannot be read.
        ValueError: `bad_ecdc: ...`, `bad_safetensors: ...` or `lm_stream_unsupported: ...`, with the file.
    """
    data = path.read_bytes()
    with _naming(path):
        if data[:4] == ecdc_legacy.MAGIC:
            codes = ecdc_legacy.read_legacy(data)
            return TokenFile(**vars(legacy_header(path, codes)), codes=codes)
        header = parse_header(path, data, len(data))
        if isinstance(header.layout, Table):
            return TokenFile(**vars(header), codes=_load_codes(header, header.layout, data))
        return TokenFile(**vars(header), codes=ecdc.read_ecdc(data, lm)[0])


def read_window(source: Path | TokenHeader, start: int, stop: int) -> Tensor:
    """Read the codes of the frames start..stop-1 as (K, stop - start) int64, and no other bytes where that is possible.

    Args:
        source: the file, or its header: from an earlier `read_header`, which saves reading it again.
        start: first frame.
        stop: frame after the last one.

    Raises:
        OSError: the file cannot be read.
        ValueError: the window leaves the file, or its codes cannot be cut: entropy-coded, or of several rates.
    """
    header = source if isinstance(source, TokenHeader) else read_header(source)
    with _naming(header.path):
        if not 0 <= start <= stop <= header.num_frames:
            raise ValueError(f"frames {start} to {stop}; the file has {header.num_frames}")
        if set(header.strides) != {1}:
            raise ValueError(f"{header.codec} has codebooks of different rates {header.strides}: no window fits all")
        if header.lm:
            raise ValueError("lm_stream_unsupported: entropy-coded codes can only be read from their beginning")
        if isinstance(header.layout, EcdcHeader):
            return torch.from_numpy(_ecdc_window(header.path, header.layout, start, stop))
        if isinstance(header.layout, Table):
            entry = header.layout.entries["codes"]
            codes = np.memmap(header.path, entry.dtype, "r", entry.offset, entry.shape)
            return torch.from_numpy(codes[:, start:stop].astype(np.int64))
    return stack(read_tokens(header.path).codes)[0, :, start:stop].clone()


def frame_times(header: TokenHeader) -> np.ndarray:
    """Return the (T,) float64 times of the frames, in seconds: the middle of the samples that each covers.

    Frame n covers the samples [n * hop_length, (n + 1) * hop_length). Those of EnCodec 48 kHz belong to segments of 1 s
    that begin every 0.99 s.
    """
    middle = (np.arange(header.num_frames) + 0.5) * header.hop_length
    for segment in segments_of(header):
        middle[segment.first_frame :] += segment.start_sample - middle[segment.first_frame] + header.hop_length / 2
    return middle / header.sample_rate


def upgrade(path: Path) -> bool:
    """Rewrite a torch-saved `.ecdc` as a true one, under its own name; returns False where it is one already.

    Raises:
        OSError: the file cannot be read.
        UserError: it cannot be written.
        ValueError: the codes do not fit the container.
    """
    found = read_tokens(path) if read_header(path).container == "torch" else None
    if found is None:
        return False
    info = CodecInfo("encodec", 24000, 1, ecdc.HOP_LENGTH, found.num_codebooks, 1024, found.strides, "unknown")
    with _naming(path):
        write_tokens(path, found.codes, info, "ecdc")
    return True


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error} ({path})") from error


def _load_codes(header: TokenHeader, table: Table, data: bytes) -> Codes:
    lengths, num_samples = torch.tensor([header.num_frames]), torch.tensor([header.num_samples])
    scales = torch.from_numpy(table.load("scales", data).copy())[None] if "scales" in table.entries else None
    if "codes" in table.entries:
        codes = torch.from_numpy(table.load("codes", data).astype(np.int64))
        return unstack(codes[None], lengths, num_samples, scales)
    books = [table.load(f"codes.{k}", data).astype(np.int64) for k in range(header.num_codebooks)]
    return Codes(tuple(torch.from_numpy(book)[None] for book in books), lengths, scales, num_samples)


def _ecdc_window(path: Path, header: EcdcHeader, start: int, stop: int) -> np.ndarray:
    books, parts = header.num_codebooks, []
    file = os.open(path, os.O_RDONLY)
    try:
        for segment in header.segments:
            low = max(start - segment.first_frame, 0)
            high = min(stop - segment.first_frame, segment.num_frames)
            if low < high:
                first, count = ecdc.window_bytes(segment, books, low, high)
                data = os.pread(file, count, segment.offset + first)
                parts.append(ecdc.unpack(data, books, low, high, first=first))
    finally:
        os.close(file)
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros((books, 0), np.int64), *parts], axis=1)

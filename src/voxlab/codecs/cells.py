"""Table cells to utterances and back: token text, lists of codes, audio bytes; with a reason for every bad cell."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from voxlab import audio
from voxlab.codecs import layouts
from voxlab.codecs.base import CodecInfo, Codes, item_seed
from voxlab.codecs.translate import Utterance

AUDIO_FORMATS = ("float32", "flac", "none")
_CHUNK_ROWS = 8
AUDIO_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass
class Cells:
    """What a column of cells holds: the good rows as utterances, the others by reason; notes on repaired rows."""

    utterances: list[Utterance] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


def read_token_cells(
    cells: Sequence, info: CodecInfo, *, layout: str, partial_tail: str, seed: int, max_seconds: float
) -> Cells:
    """Parse cells that hold one utterance's codes each.

    Args:
        cells: per row a text in `layout`, a list of `num_codebooks` lists of ints, or None.
        info: the codec that wrote the codes.
        layout: order of tokens in a text, see `layouts`.
        partial_tail: "error" or "drop", for a text whose last group is cut short.
        seed: see `base.item_seed`.
        max_seconds: longer utterances are refused (`too_long`).
    """
    found = Cells()
    for row, cell in enumerate(cells):
        try:
            codes, note = _parse(cell, info, layout, partial_tail)
        except layouts.LayoutError as error:
            found.errors[row] = error.code
            continue
        except (KeyError, TypeError, ValueError, RuntimeError):  # nulls inside, or a struct with missing fields
            found.errors[row] = "malformed_codes"
            continue
        num_samples = _num_samples(codes, info)
        if num_samples > max_seconds * info.sample_rate:
            found.errors[row] = f"too_long:{num_samples / info.sample_rate:.0f}s"
            continue
        if note:
            found.notes[row] = note
        found.utterances.append(Utterance(row, num_samples, codes=codes, seed=item_seed(seed, str(cell))))
    return found


def read_column(column: pa.ChunkedArray) -> list:
    """Return a column's cells as Python values; text that is not UTF-8 comes as bytes instead of failing the column."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(cell) for cell in column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()]


def _decoded(cell: bytes | None) -> str | bytes | None:
    try:
        return None if cell is None else cell.decode()
    except UnicodeDecodeError:
        return cell


def _parse(cell: object, info: CodecInfo, layout: str, partial_tail: str) -> tuple[Codes, str | None]:
    if isinstance(cell, bytes):
        raise layouts.LayoutError("bad_utf8", "the text is not UTF-8")
    if cell is None or isinstance(cell, str):
        parsed = layouts.parse_tokens(cell, layout, num_levels=info.num_codebooks, partial_tail=partial_tail)
        return _as_codes(parsed.levels), ", ".join(parsed.notes) or None
    if not isinstance(cell, dict):
        return _as_codes(_check_lists(cell, info)), None
    codes = _as_codes(_check_lists(cell["codes"], info))
    scales = torch.tensor([cell["scales"]], dtype=torch.float32)
    return replace(codes, scales=scales, num_samples=torch.tensor([cell["num_samples"]])), None


def _num_samples(codes: Codes, info: CodecInfo) -> int:
    if codes.num_samples is not None:
        return int(codes.num_samples[0])
    return int(codes.lengths[0]) * info.hop_length


def _check_lists(cell: object, info: CodecInfo) -> list[np.ndarray]:
    """Check a cell of plain lists against the codec: count of codebooks, equal lengths by stride, range."""
    levels = [np.asarray(level, dtype=np.int64) for level in cell]  # type: ignore[attr-defined]
    if not levels or any(level.ndim != 1 or level.size == 0 for level in levels):
        raise layouts.LayoutError("empty_tokens", "the cell holds no codes")
    if len(levels) != info.num_codebooks:
        raise layouts.LayoutError(f"bad_codebooks:{len(levels)}", f"{info.name} has {info.num_codebooks} codebooks")
    frames = {len(level) * stride for level, stride in zip(levels, info.strides, strict=True)}
    if len(frames) != 1:
        raise layouts.LayoutError("ragged_codes", f"codebook lengths {[len(level) for level in levels]}")
    for number, level in enumerate(levels):
        wrong = np.flatnonzero((level < 0) | (level >= info.codebook_size))
        if wrong.size:
            raise layouts.LayoutError(f"out_of_range:{level[wrong[0]]}@{wrong[0]}", f"codebook {number}")
    return levels


def _as_codes(levels: Sequence[np.ndarray]) -> Codes:
    codebooks = tuple(torch.from_numpy(np.ascontiguousarray(level))[None] for level in levels)
    return Codes(codebooks, torch.tensor([codebooks[-1].shape[-1]]))


def read_audio_cells(cells: Sequence, info: CodecInfo, *, max_seconds: float) -> Cells:
    """Decode cells that hold a complete audio file each (bytes, or a struct with `bytes`), at the codec's rate."""
    found = Cells()
    for row, cell in enumerate(cells):
        data = cell["bytes"] if isinstance(cell, dict) else cell
        if not data:
            found.errors[row] = "null_audio"
            continue
        try:
            wav = audio.to_mono(audio.decode_audio_bytes(data, info.sample_rate)).expand(info.channels, -1)
        except ValueError as error:
            found.errors[row] = str(error)
            continue
        if wav.shape[-1] > max_seconds * info.sample_rate:
            found.errors[row] = f"too_long:{wav.shape[-1] / info.sample_rate:.0f}s"
            continue
        found.utterances.append(Utterance(row, wav.shape[-1], wav=wav))
    return found


def audio_type(audio_format: str) -> pa.DataType:
    """Return the Arrow type of a stored waveform: raw float32 bytes, or `datasets`' Audio struct."""
    return pa.binary() if audio_format == "float32" else AUDIO_STRUCT


def audio_cells(wavs: Sequence[Tensor | None], audio_format: str, sample_rate: int) -> pa.ChunkedArray:
    """Store waveforms (C, T): little-endian float32, channels interleaved, or FLAC 16 bit in a struct.

    A few rows a chunk: Arrow counts a chunk's bytes in 32 bits, and the copies on the way stay small.
    """
    spell = audio.encode_float32 if audio_format == "float32" else partial(_flac_cell, sample_rate=sample_rate)
    parts = [wavs[start : start + _CHUNK_ROWS] for start in range(0, len(wavs), _CHUNK_ROWS)]
    kind = audio_type(audio_format)
    return pa.chunked_array(
        [pa.array([None if wav is None else spell(wav) for wav in part], kind) for part in parts], kind
    )


def _flac_cell(wav: Tensor, sample_rate: int) -> dict[str, bytes | None]:
    return {"bytes": audio.encode_flac(wav, sample_rate), "path": None}


def codes_type(info: CodecInfo) -> pa.DataType:
    """Return the Arrow type of stored codes.

    Token text for hierarchical codecs, list<list<int16>> (codebooks x frames) for flat ones, and for those with
    scales a struct of `codes`, `scales` and `num_samples`.
    """
    if len(set(info.strides)) > 1:
        return pa.string()
    books = pa.list_(pa.list_(pa.int16() if info.codebook_size <= 2**15 else pa.int32()))
    if not info.has_scales:
        return books
    return pa.struct([("codes", books), ("scales", pa.list_(pa.float32())), ("num_samples", pa.int64())])


def code_cells(all_codes: Sequence[Codes | None], info: CodecInfo) -> pa.Array:
    """Store codes, one cell an utterance, as `codes_type` says."""
    return pa.array([None if codes is None else _as_cell(codes, info) for codes in all_codes], codes_type(info))


def _as_cell(codes: Codes, info: CodecInfo) -> object:
    books = [book[0].numpy() for book in codes.codebooks]
    if len(set(info.strides)) > 1:
        return layouts.format_tokens(books)
    if codes.scales is None or codes.num_samples is None:
        return books
    return {"codes": books, "scales": codes.scales[0].numpy(), "num_samples": int(codes.num_samples[0])}

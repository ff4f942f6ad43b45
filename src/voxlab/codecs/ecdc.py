"""The `.ecdc` container of EnCodec, as the `encodec` command reads and writes it: a JSON header and 10-bit codes.

Written from the facts of the format, without the package; entropy-coded streams go through `ecdc_lm.py`.
"""

import io
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import torch

from voxlab.codecs.base import CodecInfo, Codes, check_codes, stack, unstack

MAGIC, VERSION, BITS, HOP_LENGTH, CODEBOOK_SIZE = b"ECDC", 0, 10, 320, 1024
_HEAD = struct.Struct("!4sBI")
_SCALE = struct.Struct("!f")
_MAX_JSON = 1 << 16  # the JSON has about 60 bytes; a damaged length must not fill the memory
HEADER_BYTES = _HEAD.size + _MAX_JSON


@dataclass(frozen=True)
class Format:
    """One of the two models that the container knows; `segment` and `stride` in samples, None: whole signals."""

    name: str
    sample_rate: int
    channels: int
    codebooks: tuple[int, ...]
    segment: int | None = None
    stride: int | None = None

    @property
    def has_scales(self) -> bool:
        """A loudness factor comes before the codes of each segment."""
        return self.segment is not None


FORMATS = {
    "encodec_24khz": Format("encodec_24khz", 24000, 1, (2, 4, 8, 16, 32)),
    "encodec_48khz": Format("encodec_48khz", 48000, 2, (2, 4, 8, 16), segment=48000, stride=47520),
}


class Segment(NamedTuple):
    """A stretch of audio with frames of its own; `offset` is where its packed codes begin in the file, in bytes."""

    start_sample: int
    num_samples: int
    first_frame: int
    num_frames: int
    offset: int


class EntropyCoder(Protocol):
    """Codes of one segment to and from an entropy-coded stream; see `ecdc_lm.LanguageModelCoder`."""

    def write(self, file: BinaryIO, codes: np.ndarray) -> None:
        """Append (K, T) codes to the stream."""
        ...

    def read(self, file: BinaryIO, num_codebooks: int, num_frames: int) -> np.ndarray:
        """Read (K, T) int64 codes from where the stream stands; raises EOFError where it ends too soon."""
        ...


@dataclass(frozen=True)
class EcdcHeader:
    """What the header of a file says; `payload` is the byte at which the codes begin."""

    model: str
    num_samples: int
    num_codebooks: int
    lm: bool
    payload: int = 0

    @property
    def format(self) -> Format:
        """The model's facts."""
        return FORMATS[self.model]

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The segments in order; one for the 24 kHz model."""
        found, offset, frame = [], self.payload, 0
        for start in range(0, self.num_samples, self.format.stride or self.num_samples):
            count = min(self.num_samples - start, self.format.segment or self.num_samples)
            frames = -(-count // HOP_LENGTH)
            offset += _SCALE.size if self.format.has_scales else 0
            found.append(Segment(start, count, frame, frames, offset))
            offset += packed_size(frames, self.num_codebooks)
            frame += frames
        return tuple(found)

    @property
    def num_frames(self) -> int:
        """Frames of all segments together, T."""
        return self.segments[-1].first_frame + self.segments[-1].num_frames

    @property
    def num_bytes(self) -> int:
        """Size of the file, without what may follow the codes; of streams that are not entropy-coded."""
        return self.segments[-1].offset + packed_size(self.segments[-1].num_frames, self.num_codebooks)


def packed_size(num_frames: int, num_codebooks: int, bits: int = BITS) -> int:
    """Bytes of the packed codes of one segment."""
    return -(-num_frames * num_codebooks * bits // 8)


def pack(codes: np.ndarray, bits: int = BITS) -> bytes:
    """Pack (K, T) codes frame by frame, the lowest bit first, zero-filled to a whole byte.

    Raises:
        ValueError: a code does not fit into `bits`.
    """
    values = np.ascontiguousarray(codes.T).reshape(-1)
    if values.size and not 0 <= values.min() <= values.max() < 1 << bits:
        raise ValueError(f"codes from {values.min()} to {values.max()} cannot be packed; allowed 0..{(1 << bits) - 1}")
    words = values.astype("<u2").view(np.uint8).reshape(-1, 2)
    return np.packbits(np.unpackbits(words, axis=1, count=bits, bitorder="little"), bitorder="little").tobytes()


def unpack(
    payload: bytes | memoryview, num_codebooks: int, start: int, stop: int, bits: int = BITS, *, first: int = 0
) -> np.ndarray:
    """Unpack the frames start..stop-1 as (K, stop - start) int64.

    Args:
        payload: packed codes.
        num_codebooks: K.
        start: first frame.
        stop: frame after the last one.
        bits: bits of a code, up to 16.
        first: byte of the packed codes at which `payload` begins, where only a part of them was read.

    Raises:
        ValueError: `payload` ends before the frame `stop`.
    """
    begin, end = start * num_codebooks * bits, stop * num_codebooks * bits
    low, high = begin // 8, -(-end // 8)
    data = np.frombuffer(payload, np.uint8)[low - first : high - first]
    if len(data) < high - low:
        raise ValueError(f"bad_ecdc: payload has {first + len(payload)} bytes, needs {high}")
    padded = np.zeros(len(data) + 2, np.uint32)  # a code of up to 16 bits reaches into the two bytes that follow
    padded[: len(data)] = data
    words = padded[:-2] | padded[1:-1] << 8 | padded[2:] << 16
    byte, shift = _places(begin % 8, (stop - start) * num_codebooks, bits)
    values = words[byte] >> shift & ((1 << bits) - 1)
    return values.reshape(stop - start, num_codebooks).T.astype(np.int64, order="C")


@lru_cache(8)
def _places(offset: int, count: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the byte in which each of `count` packed codes begins, and the bit in it; windows of a loader repeat."""
    at = offset + bits * np.arange(count)
    return at >> 3, (at & 7).astype(np.uint32)


def window_bytes(segment: Segment, num_codebooks: int, start: int, stop: int) -> tuple[int, int]:
    """Return (first byte, number of bytes) within a segment's packed codes that hold its frames start..stop-1."""
    low = start * num_codebooks * BITS // 8
    return low, packed_size(stop, num_codebooks) - low


def format_of(info: CodecInfo) -> Format | None:
    """Return the container's model that fits a codec; None where `.ecdc` cannot hold its codes."""
    for known in FORMATS.values():
        same = (info.name, info.sample_rate, info.channels) == ("encodec", known.sample_rate, known.channels)
        shape = info.hop_length == HOP_LENGTH and info.codebook_size == CODEBOOK_SIZE
        if same and shape and info.num_codebooks in known.codebooks and info.has_scales == known.has_scales:
            return known
    return None


def write_ecdc(codes: Codes, info: CodecInfo, lm: EntropyCoder | None = None) -> bytes:
    """Write the codes of one item as a complete file.

    Where version 0.1.1 of the `encodec` package would count one frame more than there is (its formula rounds in
    floating point), a frame of zeros is appended: that version needs it, and all others stop before it.

    Args:
        codes: a batch of one, with `num_samples`, and `scales` for the 48 kHz model.
        info: the codec that made them.
        lm: entropy coder; None packs the codes as they are.

    Raises:
        ValueError: the container cannot hold such codes, or they do not fit together.
    """
    known = format_of(info)
    if known is None or len(codes) != 1 or codes.num_samples is None:
        raise ValueError(
            f".ecdc holds one item of EnCodec at 24 or 48 kHz with its number of samples; got {len(codes)} of "
            f"{info.name} at {info.sample_rate} Hz, {info.num_codebooks} codebooks of {info.codebook_size}"
        )
    check_codes(codes, info)
    header = EcdcHeader(known.name, int(codes.num_samples[0]), info.num_codebooks, lm is not None)
    books = stack(codes)[0, :, : int(codes.lengths[0])].numpy()
    if header.num_frames != books.shape[1]:
        raise ValueError(f".ecdc: {books.shape[1]} frames; {header.num_samples} samples ask for {header.num_frames}")
    scales = [] if codes.scales is None else codes.scales[0].tolist()
    if known.has_scales and len(scales) < len(header.segments):
        raise ValueError(f".ecdc: {len(scales)} scales; {header.num_samples} samples ask for {len(header.segments)}")
    file = io.BytesIO(_spell(header))
    file.seek(0, io.SEEK_END)
    for index, segment in enumerate(header.segments):
        if known.has_scales:
            file.write(_SCALE.pack(scales[index]))
        part = books[:, segment.first_frame : segment.first_frame + segment.num_frames]
        _write_segment(file, np.pad(part, ((0, 0), (0, _ghost_frames(segment, known)))), lm)
    return file.getvalue()


def _write_segment(file: BinaryIO, codes: np.ndarray, lm: EntropyCoder | None) -> None:
    if lm is None:
        file.write(pack(codes))
    else:
        lm.write(file, codes)


def _ghost_frames(segment: Segment, known: Format) -> int:
    """Return 1 where version 0.1.1 counts a frame too many: only ever in a last segment, where no bytes follow."""
    return math.ceil(segment.num_samples / known.sample_rate * (known.sample_rate // HOP_LENGTH)) - segment.num_frames


def _spell(header: EcdcHeader) -> bytes:
    facts = {"m": header.model, "al": header.num_samples, "nc": header.num_codebooks, "lm": header.lm}
    text = json.dumps(facts).encode()
    return _HEAD.pack(MAGIC, VERSION, len(text)) + text


def read_ecdc_header(data: bytes, size: int | None = None) -> EcdcHeader:
    """Read the header of a file.

    Args:
        data: the file, or its first `HEADER_BYTES`.
        size: bytes of the complete file, to be compared with what the header asks for; None: those of `data`.

    Raises:
        ValueError: `bad_ecdc: ...`, what is wrong with it.
    """
    if data[:4] != MAGIC:
        raise ValueError(f"bad_ecdc: unknown magic {data[:4]!r}, needs {MAGIC!r}")
    if len(data) < _HEAD.size:
        raise ValueError(f"bad_ecdc: header has {len(data)} bytes, needs {_HEAD.size}")
    _, version, length = _HEAD.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"bad_ecdc: version {version}, allowed: {VERSION}")
    text = data[_HEAD.size : _HEAD.size + length]
    if length > _MAX_JSON or len(text) < length:
        raise ValueError(f"bad_ecdc: header has {len(text)} bytes of JSON, needs {length} (at most {_MAX_JSON})")
    header = _checked_header(_parsed(text), _HEAD.size + length)
    have = len(data) if size is None else size
    if not header.lm and have < header.num_bytes:
        raise ValueError(
            f"bad_ecdc: payload has {have - header.payload} bytes, needs {header.num_bytes - header.payload} "
            f"({header.num_frames} frames of {header.num_codebooks} codebooks)"
        )
    return header


def _parsed(text: bytes) -> Mapping[str, Any]:
    try:
        facts = json.loads(text.decode())
    except ValueError as error:
        raise ValueError(f"bad_ecdc: header is not JSON ({error})") from None
    if not isinstance(facts, dict) or not {"m", "al", "nc", "lm"} <= facts.keys():
        raise ValueError(f"bad_ecdc: header {text.decode()[:80]} lacks one of m, al, nc, lm")
    return facts


def _checked_header(facts: Mapping[str, Any], payload: int) -> EcdcHeader:
    model, num_samples, books, lm = facts["m"], facts["al"], facts["nc"], facts["lm"]
    if model not in FORMATS:
        raise ValueError(f"bad_ecdc: m={model!r}, allowed: {', '.join(FORMATS)}")
    if type(num_samples) is not int or num_samples < 1:
        raise ValueError(f"bad_ecdc: al={num_samples!r}, allowed: a number of samples from 1")
    if type(books) is not int or books not in FORMATS[model].codebooks:
        raise ValueError(f"bad_ecdc: nc={books!r}, allowed: {', '.join(map(str, FORMATS[model].codebooks))}")
    if type(lm) is not bool:
        raise ValueError(f"bad_ecdc: lm={lm!r}, allowed: true, false")
    return EcdcHeader(model, num_samples, books, lm, payload)


def read_ecdc(data: bytes, lm: EntropyCoder | None = None) -> tuple[Codes, EcdcHeader]:
    """Read a complete file.

    Args:
        data: its bytes; what follows the codes is ignored.
        lm: the entropy coder that the file was written with, where it was.

    Returns:
        the codes as a batch of one, segments joined in time, and the header.

    Raises:
        ValueError: `bad_ecdc: ...`, or `lm_stream_unsupported: ...` where the file is entropy-coded and `lm` is None.
    """
    header = read_ecdc_header(data)
    if header.lm and lm is None:
        raise ValueError("lm_stream_unsupported: the codes are entropy-coded; reading them needs lm_weights")
    file, parts, scales = io.BytesIO(data), [], []
    file.seek(header.payload)
    for segment in header.segments:
        if header.format.has_scales:
            scales.append(_read_scale(file))
        parts.append(_read_segment(file, segment, header, lm))
    codes = torch.from_numpy(np.concatenate(parts, axis=1))[None]
    factors = torch.tensor([scales]) if scales else None
    return unstack(codes, torch.tensor([header.num_frames]), torch.tensor([header.num_samples]), factors), header


def _read_segment(file: io.BytesIO, segment: Segment, header: EcdcHeader, lm: EntropyCoder | None) -> np.ndarray:
    if lm is None or not header.lm:
        payload = file.read(packed_size(segment.num_frames, header.num_codebooks))
        return unpack(payload, header.num_codebooks, 0, segment.num_frames)
    try:
        return lm.read(file, header.num_codebooks, segment.num_frames)
    except EOFError:
        raise ValueError(f"bad_ecdc: the entropy-coded stream ends before {header.num_frames} frames") from None


def _read_scale(file: io.BytesIO) -> float:
    data = file.read(_SCALE.size)
    if len(data) < _SCALE.size:
        raise ValueError(f"bad_ecdc: the scale of a segment has {len(data)} bytes, needs {_SCALE.size}")
    return _SCALE.unpack(data)[0]

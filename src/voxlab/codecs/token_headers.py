"""What a token file says of itself: `TokenHeader`, read from any container without unpacking codes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlab.codecs import ecdc, safetensors_file
from voxlab.codecs.base import Codes
from voxlab.codecs.ecdc import EcdcHeader
from voxlab.codecs.safetensors_file import Table

FORMAT_VERSION = "1"
HEADER_BYTES = max(ecdc.HEADER_BYTES, safetensors_file.HEADER_BYTES)


@dataclass(frozen=True, kw_only=True)
class TokenHeader:
    """What a token file says of itself.

    Attributes:
        path: the file.
        container: "ecdc", "safetensors" or "torch".
        codec: name of the codec.
        weights_id: of the codec's weights, None where the container has no room for it (ecdc, torch).
        sample_rate: Hz.
        hop_length: samples per frame of the finest codebook.
        num_codebooks: K.
        codebook_size: entries per codebook.
        strides: finest frames per code of each codebook.
        num_frames: T, frames of the finest codebook.
        num_samples: samples of the recording that was encoded.
        metadata: further strings of a safetensors file.
        layout: where the codes lie in the file.
    """

    path: Path
    container: str
    codec: str
    weights_id: str | None
    sample_rate: int
    hop_length: int
    num_codebooks: int
    codebook_size: int
    strides: tuple[int, ...]
    num_frames: int
    num_samples: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    layout: EcdcHeader | Table | None = None

    @property
    def frame_rate(self) -> float:
        """Frames of the finest codebook a second, in Hz."""
        return self.sample_rate / self.hop_length

    @property
    def lm(self) -> bool:
        """The codes are entropy-coded: reading them takes the language model."""
        return isinstance(self.layout, EcdcHeader) and self.layout.lm


@dataclass(frozen=True, kw_only=True)
class TokenFile(TokenHeader):
    """A token file's header and its codes, a batch of one."""

    codes: Codes


def parse_header(path: Path, data: bytes, size: int) -> TokenHeader:
    """Read the header of an `ecdc` or safetensors file from its first `HEADER_BYTES`; `size`: bytes of the whole file.

    Raises:
        ValueError: `bad_ecdc: ...` or `bad_safetensors: ...`.
    """
    if data[:4] == ecdc.MAGIC:
        return _ecdc_header(path, ecdc.read_ecdc_header(data, size))
    if safetensors_file.is_safetensors(data):
        return _tensor_header(path, safetensors_file.read_table(data, size))
    raise ValueError(f"bad_ecdc: unknown magic {data[:4]!r}; known: ECDC, PK (torch), safetensors")


def _encodec_header(path: Path, container: str, rate: int, books: int, frames: int, samples: int) -> dict[str, Any]:
    fixed = {"codec": "encodec", "weights_id": None, "hop_length": ecdc.HOP_LENGTH, "codebook_size": ecdc.CODEBOOK_SIZE}
    found = {"sample_rate": rate, "num_codebooks": books, "num_frames": frames, "num_samples": samples}
    return {"path": path, "container": container, "strides": (1,) * books, **fixed, **found}


def _ecdc_header(path: Path, header: EcdcHeader) -> TokenHeader:
    rate, samples = header.format.sample_rate, header.num_samples
    facts = _encodec_header(path, "ecdc", rate, header.num_codebooks, header.num_frames, samples)
    return TokenHeader(**facts, layout=header)


def legacy_header(path: Path, codes: Codes) -> TokenHeader:
    """Describe a torch-saved file by the codes that it holds."""
    assert codes.num_samples is not None
    samples, frames = int(codes.num_samples[0]), int(codes.lengths[0])
    return TokenHeader(**_encodec_header(path, "torch", 24000, len(codes.codebooks), frames, samples))


def _tensor_header(path: Path, table: Table) -> TokenHeader:
    facts = dict(table.metadata)
    try:
        version = facts.pop("format_version")
        strides = tuple(int(step) for step in json.loads(facts.pop("strides")))
        words = {name: facts.pop(name) for name in ("codec", "weights_id")}
        names = ("sample_rate", "hop_length", "num_codebooks", "codebook_size", "num_samples")
        numbers = {name: int(facts.pop(name)) for name in names}
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"bad_safetensors: metadata {sorted(table.metadata)}: {error!r}") from None
    if version != FORMAT_VERSION:
        raise ValueError(f"bad_safetensors: format_version {version}, readable: {FORMAT_VERSION}")
    frames = _count_frames(table, strides)
    if len(strides) != numbers["num_codebooks"] or not 0 < numbers["num_samples"] <= frames * numbers["hop_length"]:
        raise ValueError(f"bad_safetensors: {frames} frames, strides {strides} do not fit {numbers}")
    found = {**words, **numbers, "strides": strides, "num_frames": frames, "metadata": facts}
    return TokenHeader(path=path, container="safetensors", **found, layout=table)


def _count_frames(table: Table, strides: tuple[int, ...]) -> int:
    """Return the frames of the finest codebook; the tensors must be those that the strides ask for."""
    shapes = {name: entry.shape for name, entry in table.entries.items() if name != "scales"}
    if set(strides) == {1}:
        frames = shapes.get("codes", (0, 0))[-1]
        wanted: dict[str, tuple[int, ...]] = {"codes": (len(strides), frames)}
    else:
        frames = shapes.get("codes.0", (0,))[-1] * (strides[0] if strides else 1)
        wanted = {f"codes.{k}": (frames // step,) for k, step in enumerate(strides)}
    if shapes != wanted or not frames:
        raise ValueError(f"bad_safetensors: tensors {shapes}; strides {strides} ask for {wanted}")
    return frames


def segments_of(header: TokenHeader) -> tuple[ecdc.Segment, ...]:
    """Return the segments of the 48 kHz model; none for codecs whose frames follow each other without overlap."""
    if header.codec != "encodec" or header.sample_rate != 48000:
        return ()
    return EcdcHeader("encodec_48khz", header.num_samples, header.num_codebooks, lm=False).segments

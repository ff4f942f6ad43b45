"""How one work unit of `task=convert` is read, translated and laid out in columns; one path for each kind of input."""

import collections
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch

from voxlab.codecs import cells
from voxlab.codecs.base import Codec, Codes, item_seed
from voxlab.codecs.cells import Cells
from voxlab.codecs.translate import Translated, Translator, Utterance, with_retries
from voxlab.codecs.tts import MoshiTTS
from voxlab.parquet import Unit, read_unit

NOTE = "note:"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A unit as read from disk: utterances or texts to speak, with the rows that failed and the repaired ones."""

    cells: Cells
    texts: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """One configured conversion: what is read from a row, and which columns are made of it.

    Args:
        input: "tokens", "text" or "audio".
        column: the column that is read.
        prefix: start of the new columns' names.
        error_column: name of the column of reasons and notes.
        source: codec of the tokens (`input="tokens"`).
        codec: codec to write; None writes audio only.
        tts: speaks the texts (`input="text"`).
        audio_format: "float32", "flac" or "none".
        layout: order of tokens in a text cell.
        partial_tail: "error" or "drop".
        seed: see `base.item_seed`.
        max_batch_seconds: largest padded batch; 0 takes one item at a time.
        max_seconds: longer rows are refused.
        tts_batch_size: texts that are spoken together.
    """

    input: str
    column: str
    prefix: str
    error_column: str
    source: Codec | None
    codec: Codec | None
    tts: MoshiTTS | None
    audio_format: str
    layout: str
    partial_tail: str
    seed: int
    max_batch_seconds: float
    max_seconds: float
    tts_batch_size: int

    @cached_property
    def sample_rate(self) -> int:
        """Rate of the audio that is stored."""
        owner = self.source if self.input == "tokens" else self.codec
        assert owner is not None
        return owner.info.sample_rate

    @property
    def stores_audio(self) -> bool:
        """Audio that came from the corpus is not stored a second time."""
        return self.audio_format != "none" and self.input != "audio"

    @cached_property
    def audio_column(self) -> str:
        """Name of the audio column."""
        return f"{self.prefix}_audio"

    @cached_property
    def code_column(self) -> str | None:
        """Name of the column of codes."""
        return None if self.codec is None else f"{self.prefix}_{self.codec.info.name}"

    @cached_property
    def new_columns(self) -> pa.Schema:
        """Names and types of the columns that are added."""
        fields = [pa.field(self.audio_column, cells.audio_type(self.audio_format))] if self.stores_audio else []
        if self.codec is not None and self.code_column is not None:
            fields.append(pa.field(self.code_column, cells.codes_type(self.codec.info)))
        return pa.schema([*fields, pa.field(self.error_column, pa.string())])

    def load(self, unit: Unit) -> Loaded:
        """Read and parse a unit. No model is touched, so this may run in a thread ahead of the device.

        Raises:
            OSError, pa.ArrowInvalid: the row group is damaged.
        """
        column = cells.read_column(read_unit(unit, [self.column]).column(self.column))
        if self.input == "text":
            return _load_texts(column)
        if self.input == "audio":
            assert self.codec is not None
            return Loaded(cells.read_audio_cells(column, self.codec.info, max_seconds=self.max_seconds), {})
        assert self.source is not None
        found = cells.read_token_cells(
            column,
            self.source.info,
            layout=self.layout,
            partial_tail=self.partial_tail,
            seed=self.seed,
            max_seconds=self.max_seconds,
        )
        return Loaded(found, {})

    def translate(self, loaded: Loaded) -> list[Translated]:
        """Run the models over a unit."""
        if self.input == "text":
            return self._speak(loaded)
        translator = Translator(
            self.source if self.input == "tokens" else None,
            self.codec,
            int(self.max_batch_seconds * self.sample_rate),
            as_pcm16=self.stores_audio and self.audio_format == "flac",
        )
        return translator(loaded.cells.utterances)

    def _speak(self, loaded: Loaded) -> list[Translated]:
        rows = sorted(loaded.texts, key=lambda row: (len(loaded.texts[row].split()), row))
        texts = [(row, loaded.texts[row]) for row in rows]
        batches = [texts[start : start + self.tts_batch_size] for start in range(0, len(texts), self.tts_batch_size)]
        spoken = [item for batch in batches for item in with_retries(batch, self._speak_batch, _unspoken)]
        if not self.stores_audio:
            return spoken
        decoded = {item.row: item for item in self._decode(spoken)}
        return [_joined(item, decoded[item.row]) if item.codes else item for item in spoken]

    def _speak_batch(self, batch: Sequence[tuple[int, str]]) -> list[Translated]:
        assert self.tts is not None
        texts = [text for _, text in batch]
        results = self.tts.generate(texts, seed=item_seed(self.seed, "|".join(texts)))
        return [
            Translated(row, None, None if result.codes is None else _flat_codes(result.codes), result.reason)
            for (row, _), result in zip(batch, results, strict=True)
        ]

    def _decode(self, spoken: Sequence[Translated]) -> list[Translated]:
        assert self.codec is not None
        hop_length = self.codec.info.hop_length
        utterances = [
            Utterance(item.row, int(item.codes.lengths[0]) * hop_length, codes=item.codes)
            for item in spoken
            if item.codes is not None
        ]
        translator = Translator(self.codec, None, int(self.max_batch_seconds * self.sample_rate))
        return translator(utterances)

    def lay_out(self, loaded: Loaded, results: Sequence[Translated], num_rows: int) -> tuple[pa.Table, dict[str, Any]]:
        """Return a unit's new columns, failed rows as nulls with their reason, and its counts."""
        by_row = {result.row: result for result in results if result.error is None}
        errors = loaded.cells.errors | {result.row: result.error for result in results if result.error}
        notes = {row: f"{NOTE}{note}" for row, note in loaded.cells.notes.items() if row in by_row}
        notes |= {row: f"{NOTE}silent_audio" for row, result in by_row.items() if _is_silent(result)}
        rows = [by_row.get(row) for row in range(num_rows)]
        columns = (
            [cells.audio_cells([row and row.wav for row in rows], self.audio_format, self.sample_rate)]
            if self.stores_audio
            else []
        )
        if self.codec is not None:
            columns.append(cells.code_cells([row and row.codes for row in rows], self.codec.info))
        columns.append(pa.array([errors.get(row, notes.get(row)) for row in range(num_rows)], pa.string()))
        counts = {
            "rows": num_rows,
            "notes": len(notes),
            "errors": dict(collections.Counter(str(reason).split(":")[0] for reason in errors.values())),
            "num_samples": sum(self._num_samples(result) for result in by_row.values()),
        }
        return pa.table(columns, schema=self.new_columns), counts

    def _num_samples(self, result: Translated) -> int:
        if result.wav is not None:
            return result.wav.shape[-1]
        assert self.codec is not None
        return 0 if result.codes is None else int(result.codes.lengths[0]) * self.codec.info.hop_length

    def file_metadata(self, schema: pa.Schema) -> dict[bytes, bytes]:
        """Return the `datasets` features of a published file: the input's, and those of the new columns."""
        known = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        try:
            features = known.get("info", {}).get("features") or _features(schema)
        except ValueError as error:  # a column type that `datasets` does not know
            log.warning("the output carries no `datasets` features: %s", error)
            return dict(schema.metadata or {})
        features |= _features(self.new_columns)
        if self.stores_audio and self.audio_format == "flac":
            features[self.audio_column] = {"sampling_rate": self.sample_rate, "_type": "Audio"}
        known.setdefault("info", {})["features"] = features
        return {**(schema.metadata or {}), b"huggingface": json.dumps(known, sort_keys=True).encode()}


def _load_texts(column: Sequence[str | bytes | None]) -> Loaded:
    errors = {row: "bad_utf8" for row, text in enumerate(column) if isinstance(text, bytes)}
    texts = {row: text for row, text in enumerate(column) if isinstance(text, str) and text.strip()}
    errors |= {row: "empty_text" for row in range(len(column)) if row not in texts and row not in errors}
    return Loaded(Cells(errors=errors), texts)


def _unspoken(item: tuple[int, str], reason: str) -> Translated:
    return Translated(item[0], error=reason)


def _joined(spoken: Translated, decoded: Translated) -> Translated:
    """Put audio to the codes it was decoded from; codes whose audio failed count as failed."""
    return Translated(spoken.row, decoded.wav, spoken.codes if decoded.error is None else None, decoded.error)


def _flat_codes(codes: torch.Tensor) -> Codes:
    """Wrap (K, N) codes of one utterance."""
    return Codes(tuple(row[None] for row in codes.cpu()), torch.tensor([codes.shape[-1]]))


def _is_silent(result: Translated) -> bool:
    return result.wav is not None and not bool(result.wav.any())


def _features(schema: pa.Schema) -> dict[str, Any]:
    from datasets import Features

    return dict(Features.from_arrow_schema(schema.remove_metadata()).to_dict())

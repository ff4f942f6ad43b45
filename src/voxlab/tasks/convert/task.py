"""Convert a corpus between codecs: tokens, text or audio in Parquet -> audio -> another codec's tokens.

python main.py task=convert data=voiceassistant codec=mimi
"""

import math
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from voxlab import parquet, storage
from voxlab.codecs.base import Codec
from voxlab.codecs.cells import AUDIO_FORMATS, codes_type
from voxlab.codecs.layouts import LAYOUTS
from voxlab.codecs.tts import MoshiTTS
from voxlab.data.voiceassistant import BadFile, VoiceAssistant
from voxlab.errors import UserError
from voxlab.parallel import Ranks, barrier
from voxlab.parquet import Source
from voxlab.tasks.convert import summary
from voxlab.tasks.convert.units import Conversion
from voxlab.tasks.convert.work import Work

FORMAT_VERSION = 1
_GPU_BATCH_SECONDS = 600.0


def convert(
    *,
    corpus: VoiceAssistant,
    source: Codec | None,
    codec: Codec | None,
    tts: MoshiTTS | None,
    input: str,
    out: str,
    audio_format: str,
    partial_tail: str,
    max_seconds: float,
    unit_rows: int,
    max_batch_seconds: float | None,
    tts_batch_size: int,
    max_bad_fraction: float,
    restart: bool,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Write each input file with its original columns plus `<prefix>_audio`, `<prefix>_<codec>` and a column of errors.

    The same call again goes on where an earlier one stopped; output bytes depend neither on where that was nor on
    the number of ranks.

    Args:
        corpus: the Parquet files and their column names.
        source: codec of the tokens in the corpus.
        codec: codec to write; None writes audio only.
        tts: speaks the text column (`input="text"`).
        input: "tokens", "text" or "audio".
        out: output folder, apart from the input's.
        audio_format: "float32" (raw little-endian bytes), "flac" (16 bit, `datasets` Audio) or "none".
        partial_tail: "error" or "drop", for token texts whose last group is cut short.
        max_seconds: longer rows are refused.
        unit_rows: rows that are computed and saved together; what a crash can lose.
        max_batch_seconds: largest padded batch in seconds of audio, 0 for one row at a time; None chooses by device.
        tts_batch_size: texts that are spoken together (`input="text"`).
        max_bad_fraction: fail at the end when more rows than this could not be converted.
        restart: discard what an earlier run left in `out`.
        seed: noise and sampling; combined with each row's content.
        dry_run: print the plan and write nothing.
        ranks: this process among its peers.
        run_dir: folder of this run, for the report page.

    Returns:
        Counts, rates and the files written.

    Raises:
        UserError: wrong settings, no usable input, or a foreign output folder.
        TooManyBadItems: more rows failed than `max_bad_fraction`, or some files could not be read.
    """
    _check_corpus(corpus)
    if max_batch_seconds is None:
        max_batch_seconds = _GPU_BATCH_SECONDS if ranks.device.startswith("cuda") else 0.0
    column = {"tokens": corpus.tokens_column, "text": corpus.text_column, "audio": corpus.audio_column}[input]
    conversion = Conversion(
        input=input,
        column=column,
        prefix=corpus.output_prefix or column.rsplit("_", 1)[0],
        error_column=f"{corpus.output_prefix}_error" if corpus.output_prefix else "convert_error",
        source=source if input == "tokens" else None,
        codec=codec,
        tts=tts if input == "text" else None,
        audio_format=audio_format,
        layout=corpus.layout,
        partial_tail=partial_tail,
        seed=seed,
        max_batch_seconds=max_batch_seconds,
        max_seconds=max_seconds,
        tts_batch_size=tts_batch_size,
    )
    limits = {"unit_rows": unit_rows, "tts_batch_size": tts_batch_size}
    _check_choices(conversion, limits, max_bad_fraction)
    if ranks.is_first and not dry_run:
        corpus.prepare()
    barrier(ranks)
    corpus.paths()  # before weights are looked for: a wrong folder is the cheaper mistake to find
    folder, settings = Path(out), _settings(conversion, unit_rows)
    if not restart:
        storage.refuse_other_settings(folder, settings)
        _refuse_native_noise(conversion, folder)
    sources, bad = _open_corpus(corpus, conversion, folder)
    units = {item.name: parquet.plan_units(item, unit_rows) for item in sources}
    work = Work(conversion, folder, settings, sources, units, ranks)
    if dry_run:
        return summary.describe_plan(work, bad)
    work.open_folder(restart=restart)
    bad += work.run()
    return summary.finish(work, bad, run_dir, max_bad_fraction)


def _check_corpus(corpus: object) -> None:
    """Stop at a corpus that is no set of Parquet files."""
    if not isinstance(corpus, VoiceAssistant):
        raise UserError(
            "task=convert reads Parquet files: set data=voiceassistant, data.root and data.pattern.\n"
            "For recordings in a folder: task=extract data=audiofolder data.root=DIR"
        )


def _check_choices(conversion: Conversion, limits: dict[str, int], max_bad_fraction: float) -> None:
    """Stop before anything is read when a choice can't be or the choices can't go together."""
    for key, value in limits.items():
        if value < 1:
            raise UserError(f"{key}={value}: give 1 or more.")
    if not 0 <= max_bad_fraction <= 1:
        raise UserError(f"max_bad_fraction={max_bad_fraction}: give a fraction from 0 to 1.")
    if not (0 <= conversion.max_batch_seconds < math.inf and 0 < conversion.max_seconds < math.inf):
        raise UserError("max_batch_seconds must be 0 or more, max_seconds more than 0, both finite.")
    if conversion.layout not in LAYOUTS:
        raise UserError(f"data.layout={conversion.layout}: choose one of {', '.join(LAYOUTS)}.")
    if conversion.audio_format not in AUDIO_FORMATS:
        raise UserError(f"audio_format={conversion.audio_format}: choose one of {', '.join(AUDIO_FORMATS)}.")
    if conversion.input == "tokens" and conversion.source is None:
        raise UserError("input=tokens needs the codec that wrote the tokens: set codec@source=snac (or another).")
    if conversion.input == "audio" and conversion.codec is None:
        raise UserError("input=audio with codec=none leaves nothing to do: choose a codec, for example codec=mimi.")
    if conversion.input == "text":
        _check_speech(conversion)
    if conversion.codec is None and conversion.audio_format == "none":
        raise UserError("codec=none with audio_format=none leaves nothing to write: change one of them.")


def _check_speech(conversion: Conversion) -> None:
    """Text becomes the very tokens that the speech model speaks, so codec and model must be of one family."""
    codec, tts = conversion.codec, conversion.tts
    if codec is None or tts is None or codec.info.name != "mimi":
        raise UserError("input=text speaks Mimi tokens: set codec=mimi (convert them to another codec afterwards).")
    spoken, read = tts.info, codec.info
    if (spoken.weights_id, spoken.num_codebooks) != (read.weights_id, read.num_codebooks):
        raise UserError(
            f"the speech model speaks {spoken.num_codebooks} codebooks of Mimi {spoken.weights_id}, codec=mimi is "
            f"{read.num_codebooks} codebooks of {read.weights_id}.\nSet codec.weights={tts.weights} and "
            f"codec.num_codebooks={spoken.num_codebooks}."
        )


def _settings(conversion: Conversion, unit_rows: int) -> dict[str, Any]:
    """Return everything that decides the output's bytes, for the fingerprint. Hashes weights, loads no model."""
    parts = {"source": conversion.source, "codec": conversion.codec, "tts": conversion.tts}
    return {
        "format_version": FORMAT_VERSION,
        "input": conversion.input,
        "column": conversion.column,
        "columns": conversion.new_columns.names,
        "audio_format": conversion.audio_format if conversion.stores_audio else "none",
        "layout": conversion.layout,
        "partial_tail": conversion.partial_tail,
        "seed": conversion.seed,
        "unit_rows": unit_rows,
        "max_batch_seconds": conversion.max_batch_seconds,
        "max_seconds": conversion.max_seconds,
        "tts_batch_size": conversion.tts_batch_size if conversion.tts else None,
        **{name: None if part is None else part.fingerprint() for name, part in parts.items()},
    }


def _refuse_native_noise(conversion: Conversion, folder: Path) -> None:
    """Noise from the global generator can't go on where an interrupted run stopped."""
    native = conversion.source is not None and conversion.source.fingerprint().get("noise") == "native"
    if native and storage.read_manifest(folder) is not None:
        raise UserError(
            f"source.noise=native can't be resumed, and {folder} holds work already. Start over (restart=true), or "
            "use source.noise=seeded, which gives the same noise at any resume point."
        )


def _open_corpus(corpus: VoiceAssistant, conversion: Conversion, out: Path) -> tuple[list[Source], list[BadFile]]:
    """Open the input files and refuse an output folder or column that would overwrite them."""
    if out.resolve() in (corpus.folder.resolve(), (corpus.folder / "data").resolve()):
        raise UserError(f"out={out} is the input folder; the input is never modified. Choose another (out=...).")
    sources, bad = corpus.open([conversion.column])
    if not sources:
        found = "\n  ".join(f"{file.name}: {file.reason}" for file in bad)
        raise UserError(f"none of the {len(bad)} files under {corpus.folder} can be converted:\n  {found}")
    inputs = {source.path.resolve() for source in sources}
    for source in sources:
        if ".." in PurePosixPath(source.name).parts or (out / source.name).resolve() in inputs:
            raise UserError(
                f"the output of {source.path} would be {out / source.name}, which is or may be an input; the input is "
                "never modified. Choose another folder (out=...) and a pattern below data.root."
            )
        _check_cell_type(source, conversion)
        taken = [name for name in conversion.new_columns.names if name in source.schema.names]
        if taken:
            raise UserError(
                f"{source.name} has a column {', '.join(taken)} already; choose other names for the new columns: "
                f"data.output_prefix=NAME (now {conversion.prefix})."
            )
    return sources, bad


def _check_cell_type(source: Source, conversion: Conversion) -> None:
    """Stop when the column can't hold what is read from it."""
    kind = source.schema.field(conversion.column).type
    if conversion.input == "text" and not _is_text(kind):
        _refuse_type(source, conversion, "text", "data.text_column=...")
    if conversion.input == "audio" and not _is_audio(kind):
        _refuse_type(
            source, conversion, "complete audio files: binary, or a struct with `bytes`", "data.audio_column=..."
        )
    if conversion.source is None:
        return
    info = conversion.source.info
    if info.has_scales:
        fits = pa.types.is_struct(kind)
    else:
        fits = _is_nested_list(kind) or (_is_text(kind) and len(set(info.strides)) > 1)
    if not fits:
        wanted = f"{info.name} codes: {codes_type(info)}, or list<list<int>> (codebooks x codes)"
        _refuse_type(
            source, conversion, wanted, "data.tokens_column=..., or the codec of this column codec@source=snac"
        )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    types = pa.types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)


def _is_audio(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_nested_list(kind: pa.DataType) -> bool:
    def is_list(one: pa.DataType) -> bool:
        return pa.types.is_list(one) or pa.types.is_large_list(one) or pa.types.is_fixed_size_list(one)

    return is_list(kind) and is_list(kind.value_type) and pa.types.is_integer(kind.value_type.value_type)


def _refuse_type(source: Source, conversion: Conversion, wanted: str, key: str) -> None:
    kind = source.schema.field(conversion.column).type
    raise UserError(
        f"{source.name}: column {conversion.column} is {kind}; needed are {wanted}.\nName the right column: {key}."
    )

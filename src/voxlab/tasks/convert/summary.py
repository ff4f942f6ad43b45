"""What `task=convert` tells at its end, or before its start: manifest, errors.jsonl, summary, report page, dry run."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from voxlab import audio, parquet, plots, report, storage
from voxlab.codecs.cells import Cells
from voxlab.codecs.translate import Utterance
from voxlab.data.voiceassistant import BadFile
from voxlab.errors import TooManyBadItems, UserError
from voxlab.parallel import barrier, gather
from voxlab.tasks import estimate
from voxlab.tasks.convert.units import NOTE, Conversion, Loaded
from voxlab.tasks.convert.work import Work, add_counts

log = logging.getLogger(__name__)

ERRORS = "errors.jsonl"
_CLIPS = 6
# Bytes per second of audio: raw float32, FLAC as measured on speech, 32 Mimi codebooks with dictionary and zstd.
_BYTES_PER_SECOND = {"float32": 96_000.0, "flac": 20_262.0, "none": 0.0}
_CODE_BYTES_PER_SECOND = 559.0


def finish(work: Work, bad: Sequence[BadFile], run_dir: Path, max_bad_fraction: float) -> dict[str, Any]:
    """Write manifest, errors and report on the first rank; return the summary on every rank.

    Raises:
        TooManyBadItems: more rows failed than `max_bad_fraction`, or input files could not be converted.
    """
    bad = _merged(bad)
    shares = gather(work.ranks, (work.rows_done, work.samples_done, work.seconds))
    done = [source.name for source in work.sources if work.is_published(source)]
    published = {name: mark for name in done if (mark := parquet.read_stamp(work.out / name)) is not None}
    totals = add_counts(list(published.values()))
    summary = _summary(work, totals, shares, len(published), len(bad))
    if work.ranks.is_first:
        _write_manifest(work, published, totals, bad)
        _write_errors(work, published, bad)
        log.info("\n%s", "\n".join(f"  {key.replace('_', ' ')}: {value}" for key, value in summary.items()))
        summary["report"] = str(_write_report(work, summary, totals, bad, run_dir))
    barrier(work.ranks)  # a rank that fails now would end the first one while it writes
    _judge(work, totals, bad, max_bad_fraction)
    return summary


def _merged(bad: Sequence[BadFile]) -> list[BadFile]:
    """Return one entry a file, sorted, with all its reasons."""
    reasons: dict[str, list[str]] = {}
    for file in sorted(bad, key=lambda file: (file.name, file.reason)):
        reasons.setdefault(file.name, []).append(file.reason)
    return [BadFile(name, "; ".join(found)) for name, found in reasons.items()]


def _summary(
    work: Work, totals: Mapping[str, Any], shares: Sequence[tuple[int, int, float]], files: int, bad_files: int
) -> dict[str, Any]:
    sample_rate = work.conversion.sample_rate
    rows, samples = sum(share[0] for share in shares), sum(share[1] for share in shares)
    seconds = max(share[2] for share in shares)
    summary = {
        "out": str(work.out),
        "files": files,
        "files_left_out": bad_files,
        "rows": totals["rows"],
        "failed_rows": sum(totals["errors"].values()),
        "repaired_rows": totals["notes"],
        "audio_hours": round(totals["num_samples"] / sample_rate / 3600, 4),
        "rows_this_run": rows,
    }
    if rows:
        summary["rows_per_second"] = round(rows / seconds, 3)
        summary["audio_seconds_per_second"] = round(samples / sample_rate / seconds, 2)
    return summary


def _judge(work: Work, totals: Mapping[str, Any], bad: Sequence[BadFile], max_bad_fraction: float) -> None:
    failed, rows = sum(totals["errors"].values()), max(totals["rows"], 1)
    reasons = ", ".join(f"{code} {count}" for code, count in totals["errors"].items())
    if failed / rows > max_bad_fraction:
        raise TooManyBadItems(
            f"{failed} of {rows} rows failed ({failed / rows:.1%}; allowed: {max_bad_fraction:.1%}): {reasons}.\n"
            f"They are null in the output and listed in {work.out / ERRORS}. Raise max_bad_fraction to accept that."
        )
    if bad:
        raise TooManyBadItems(
            f"{len(bad)} input files could not be converted; all others are complete in {work.out}:\n  "
            + "\n  ".join(f"{file.name}: {file.reason}" for file in bad[:10])
            + "\nReplace them (data.source=download fetches missing files) and run the same command again."
        )


def _write_manifest(
    work: Work, published: Mapping[str, Mapping[str, Any]], totals: Mapping[str, Any], bad: Sequence[BadFile]
) -> None:
    codecs = {"source": work.conversion.source, "codec": work.conversion.codec}
    manifest = work.manifest_head() | {
        "codecs": {role: _codec_facts(codec) for role, codec in codecs.items() if codec is not None},
        "audio_sample_rate": work.conversion.sample_rate if work.conversion.stores_audio else None,
        "files": dict(sorted(published.items())),
        "bad_files": {file.name: file.reason for file in bad},
        "totals": dict(totals),
        "complete": len(published) == len(work.sources) and not bad,
    }
    storage.atomic_write_json(work.out / storage.MANIFEST, manifest)


def _codec_facts(codec: Any) -> dict[str, Any]:
    info = codec.info
    facts = ("name", "weights_id", "sample_rate", "frame_rate", "num_codebooks", "codebook_size")
    return {fact: getattr(info, fact) for fact in facts}


def _write_errors(work: Work, published: Mapping[str, Mapping[str, Any]], bad: Sequence[BadFile]) -> None:
    lines = [{"file": file.name, "row": None, "reason": file.reason} for file in bad]
    lines += [line for name, mark in sorted(published.items()) if mark["errors"] for line in _failed_rows(work, name)]
    text = "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)
    path = work.out / ERRORS
    if not (path.is_file() and path.read_text(encoding="utf-8") == text):
        storage.atomic_write_bytes(path, text.encode())


def _failed_rows(work: Work, name: str) -> Iterator[dict[str, Any]]:
    column = work.conversion.error_column
    with pq.ParquetFile(work.out / name) as file:
        keys = [key for key in ("index", "round") if key in file.schema_arrow.names]
        table = file.read([*keys, column])
    for row, values in enumerate(table.to_pylist()):
        reason = values.pop(column)
        if reason is not None and not reason.startswith(NOTE):
            yield {"file": name, "row": row, **values, "reason": reason}


def _write_report(
    work: Work, summary: Mapping[str, Any], totals: Mapping[str, Any], bad: Sequence[BadFile], run_dir: Path
) -> Path:
    try:
        rows = list(_first_rows(work))
    except UnicodeDecodeError as error:
        log.warning("the report shows no rows, their text is not UTF-8: %s", error)
        rows = []
    sections = [
        *_warnings(work),
        report.facts("Summary", {key.replace("_", " "): value for key, value in summary.items()}),
        report.bars("Rows", _outcomes(totals)),
    ]
    if bad:
        sections.append(report.table("Files left out", ["file", "reason"], [[file.name, file.reason] for file in bad]))
    sections.append(report.players("Listen", [clip for row in rows for clip in _clips(work, row)]))
    sections += _token_images(work, rows)
    sections.append(report.code(json.dumps(work.settings, indent=2), "Settings"))
    subtitle = f"{work.conversion.column} to {', '.join(work.conversion.new_columns.names)} in {work.out}"
    return report.write_report(run_dir / "report.html", "voxlab convert", subtitle, sections)


def _warnings(work: Work) -> list[report.Section]:
    codecs = [codec for codec in (work.conversion.source, work.conversion.codec) if codec is not None]
    names = [codec.info.name for codec in codecs if codec.info.weights_id.startswith("random:")]
    if not names:
        return []
    text = (
        f"{' and '.join(names)} with random weights: audio is noise and tokens mean nothing; this shows the pipeline."
    )
    return [report.notice(text)]


def _outcomes(totals: Mapping[str, Any]) -> dict[str, int]:
    failed = sum(totals["errors"].values())
    return {"converted": totals["rows"] - failed - totals["notes"], "repaired": totals["notes"], **totals["errors"]}


def _token_images(work: Work, rows: Sequence[Mapping[str, Any]]) -> list[report.Section]:
    column = work.conversion.code_column
    codes = [row[column] for row in rows if column is not None and isinstance(row[column], list)]
    if not codes:
        return []
    image = plots.plot_codes(codes[0], size=plots.WIDE)
    return [report.figure("Tokens of the first row", image, f"column {column}: codebooks x frames")]


def _first_rows(work: Work) -> Iterator[dict[str, Any]]:
    """Read the first converted rows for the report page: one row group, and no more."""
    left = _CLIPS // 2
    for source in work.sources:
        if left and work.is_published(source) and source.num_rows:
            with pq.ParquetFile(work.out / source.name) as file:
                rows = file.read_row_group(0).slice(0, 4 * left).to_pylist()
            good = [row for row in rows if (row[work.conversion.error_column] or NOTE).startswith(NOTE)][:left]
            left -= len(good)
            yield from good


def _clips(work: Work, row: Mapping[str, Any]) -> Iterator[report.Clip]:
    for column in dict.fromkeys(("question_audio", work.conversion.audio_column)):
        cell = row.get(column)
        if not cell:
            continue
        text = str(row.get(column.removesuffix("_audio"), ""))
        try:
            wav, sample_rate = _read_cell(cell, work.conversion.sample_rate)
        except ValueError as error:  # the corpus's own audio, which is copied unread
            wav, sample_rate, text = torch.zeros(1, 0), work.conversion.sample_rate, f"{text} ({error})"
        yield report.Clip(column, wav, sample_rate, text=text)


def _read_cell(cell: Any, sample_rate: int) -> tuple[Tensor, int]:
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return audio.load(cell["bytes"])
    if not isinstance(cell, bytes) or len(cell) % 4:
        raise ValueError("bad_audio:unknown_form")
    return torch.from_numpy(np.frombuffer(cell, "<f4").copy())[None], sample_rate


def describe_plan(work: Work, bad: Sequence[BadFile]) -> dict[str, Any]:
    """Tell what a run would do, from footers and the first unit of rows, a few of which are converted in memory."""
    conversion = work.conversion
    units = [unit for source in work.sources for unit in work.units[source.name]]
    if not units:
        raise UserError(f"the {len(work.sources)} input files have no rows; there is nothing to plan.")
    loaded = conversion.load(units[0])
    cells = loaded.cells
    rows = sum(source.num_rows for source in work.sources)
    mean = sum(item.num_samples for item in cells.utterances) / conversion.sample_rate / max(len(cells.utterances), 1)
    plan = {
        "out": str(work.out),
        "files": len(work.sources),
        "files_done": sum(map(work.is_published, work.sources)),
        "files_bad": len(bad),
        "rows": rows,
        "units": len(units),
        "columns": ", ".join(work.sources[0].schema.names),
        "new_columns": ", ".join(conversion.new_columns.names),
        "sampled_rows": units[0].num_rows,
        "sampled_failures": dict(Counter(str(reason).split(":")[0] for reason in cells.errors.values())),
        "mean_seconds": round(mean, 2),
        "audio_hours": round(mean * rows / 3600, 2),
        "disk": f"about {estimate.spell_size(_output_bytes(work, mean * rows))} in the end",
        "time": estimate.attempt(partial(_expected_time, work, loaded, mean * rows)),
    }
    if work.ranks.is_first:
        log.info("\n%s", "\n".join(f"  {key.replace('_', ' ')}: {value}" for key, value in plan.items()))
    return plan


def _expected_time(work: Work, loaded: Loaded, seconds: float) -> str:
    """Translate a few rows of a unit in memory; return what all rows that are left would take."""
    conversion = work.conversion
    items = list(loaded.texts.items()) or loaded.cells.utterances
    left = work.rows_left / max(sum(source.num_rows for source in work.sources), 1)
    if not items:
        return estimate.not_measured("no row of the first unit can be converted")
    if not left:
        return estimate.about(0, "everything is done")
    loading = time.perf_counter()
    work.load_models()
    loading = time.perf_counter() - loading
    pace, count = estimate.measure(partial(_translate, conversion), items, work.ranks.device)
    amount = work.rows_left if loaded.texts else seconds * left
    speed = estimate.spell_rate(pace, "row") if loaded.texts else f"{1 / pace:.3g} x real time"
    basis = f"{count} rows measured, {speed}" + (f" on each of {work.ranks.world} ranks" * (work.ranks.world > 1))
    return estimate.about(loading + pace * amount / work.ranks.world, basis)


def _translate(conversion: Conversion, items: Sequence[Any]) -> float:
    """Convert some rows; return seconds of audio, or texts."""
    if isinstance(items[0], Utterance):
        some = Loaded(Cells(list(items)), {})
        num_rows = max(item.row for item in items) + 1
    else:
        some, num_rows = Loaded(Cells(), dict(items)), max(row for row, _ in items) + 1
    _, counts = conversion.lay_out(some, conversion.translate(some), num_rows)
    return len(items) if some.texts else counts["num_samples"] / conversion.sample_rate


def _output_bytes(work: Work, seconds: float) -> float:
    """Estimate the output: the input files, which are copied, and what each second of audio adds."""
    conversion = work.conversion
    per_second = _BYTES_PER_SECOND[conversion.audio_format if conversion.stores_audio else "none"]
    per_second += _CODE_BYTES_PER_SECOND if conversion.codec is not None else 0
    return sum(source.path.stat().st_size for source in work.sources) + seconds * per_second
